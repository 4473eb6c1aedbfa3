"""Steps that are the same step: they have one word in common, and the first of them runs for all.

Each of them has a row of its own, so that its run and its client find it on record. Those that follow the first are
never queued, and end with its result, in the same transaction. When the first is cancelled before its end, that is no
result for the others: one of them runs in its place.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dq.model.states import CANCELLED
from dq.store.group import TermRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dq.crew.claims import Batch, Row
    from dq.crew.ledger import Function, Run
    from dq.crew.peer import Peer
    from dq.crew.supervisor import Supervisor
    from dq.executor.frames import Term
    from dq.store.reads import OpenTerm

Word = tuple[str, str]  # (function, word): functions have their words for themselves


class First:
    """A step that others may be the same as."""

    __slots__ = ("due_at", "followers", "id", "outcome", "until", "word")

    def __init__(self, id: int, word: Word, until: int, due_at: int = 0) -> None:
        self.id = id
        self.word = word
        self.until = until  # microseconds UTC
        self.due_at = due_at  # the same, where it is known from the file only
        self.followers: dict[int, tuple[Row, Batch | None]] = {}
        self.outcome: tuple[int, bytes] | None = None  # status and payload, until they are in the file


class Dedups:
    """Who is the same as whom.

    Attributes:
        open: firsts without a result, by step.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._committer = supervisor.committer
        self._firsts: dict[Word, First] = {}
        self._restored: list[tuple[OpenTerm, Batch | None]] = []
        self.open: dict[int, First] = {}

    def take(self, row: Row, batch: Batch | None, term: Term, told: TermRow, now: int) -> TermRow:
        """A new step with a word. Returns what is to be written: with `same_as` where it is the same as another."""
        word = (self._label(self._sup.ledger.functions[row[2]]), term.dedup)
        first = self._find(word, now)
        outcome = self._outcome(first) if first is not None and first.id not in self.open else None
        if first is None or (outcome is None and (first.id not in self.open or term.debounce)):
            return self._lead(word, first, row, told, now + term.dedup_for if term.dedup_for else 0)
        if outcome is None:
            first.followers[row[0]] = row, batch
        else:
            self._end(row, batch, *outcome)
        return told._replace(due_at=None, dedup=term.dedup, dedup_until=first.until or None, same_as=first.id)

    def _lead(self, word: Word, before: First | None, row: Row, told: TermRow, until: int) -> TermRow:
        """A step that runs for all that follow it, and for the one `before` it if that waits for another to take its place."""
        first = self._firsts[word] = self.open[row[0]] = First(row[0], word, until)
        if before is not None and before.id in self.open and self._gives_way(before, first):
            del self.open[before.id]
            self._committer.group.same_as.append((first.id, before.id))
        return told._replace(dedup=word[1], dedup_until=until or None)

    def _gives_way(self, before: First, first: First) -> bool:
        """Whether a step has not begun. Then it follows the one that takes its place, and so do those that followed it."""
        held = self._sup.delays.give_up(before.id)
        if held is not None:
            first.followers = {before.id: held, **before.followers}
            return True
        if self._sup.options.workers or before.due_at <= self._sup.clock.now():
            return False
        return not self._sup.store.attempts([before.id])[before.id][
            0
        ]  # nobody works on it, so that it waits in the file

    def _label(self, function: Function) -> str:
        """What a function is called wherever it comes from; scripts have their own `__main__`."""
        if not function.name.startswith("__main__:"):
            return function.name
        return f"{self._sup.ledger.contexts[function.context].script}:{function.name}"

    def _find(self, word: Word, now: int) -> First | None:
        """The step that another one with this word is the same as. What is not known here may be in the file."""
        first = self._firsts.get(word)
        if first is not None:
            return first if first.id in self.open or first.until > now else None
        for id, function, until, ended, due_at in self._sup.store.find_duplicates(word[1], now):
            if self._label(self._sup.ledger.functions[function]) == word[0]:
                first = self._firsts[word] = self.open.get(id) or First(id, word, until, due_at)
                if ended:
                    self._forget_later(first)
                else:
                    self.open[id] = first
                return first
        return None

    def _outcome(self, first: First) -> tuple[int, bytes] | None:
        """How it has ended; None where that was tidied up meanwhile."""
        if first.outcome is not None:
            return first.outcome
        return next(((record.status, record.payload) for record in self._sup.store.results([first.id])), None)

    def _end(self, row: Row, batch: Batch | None, status: int, payload: bytes) -> None:
        self._sup.results.settle([(row[0], 0, row[2], b"")], batch, status, payload)

    def ended(self, rows: Iterable[tuple[int, int, bytes]]) -> None:
        """These steps, (id, status, payload), have just ended: those that are the same end with them."""
        for id, status, payload in rows:
            first = self.open.pop(id, None)
            if first is None:
                continue
            if status == CANCELLED:
                self._pass_on(first)
                continue
            first.outcome = status, payload
            followers, first.followers = first.followers, {}
            for row, batch in followers.values():
                self._end(row, batch, status, payload)
            self._committer.then.append(partial(self._written, first))

    def _written(self, first: First) -> None:
        first.outcome = None
        self._forget_later(first)

    def _forget_later(self, first: First) -> None:
        if first.until > self._sup.clock.now():
            self._sup.alarms.at(first.until, lambda: self._forget(first))
        else:
            self._forget(first)

    def _forget(self, first: First) -> None:
        if self._firsts.get(first.word) is first:
            del self._firsts[first.word]

    def _pass_on(self, first: First) -> None:
        """The first was cancelled: the next one runs instead, and is the one that the others are the same as."""
        self._forget(first)
        if not first.followers:
            return
        followers = dict(first.followers)
        id = next(iter(followers))
        row, batch = followers.pop(id)
        heir = self.open[id] = First(id, first.word, first.until)
        heir.followers = followers
        self._firsts.setdefault(first.word, heir)  # another one may lead by now
        self._committer.group.same_as += [(None, id), *((id, other) for other in followers)]
        self._committer.dirty = True
        if self._sup.options.workers:
            self._sup.scheduler.requeue([(row, batch)])

    def take_back(self, owner: Peer | Run, ids: set[int]) -> list[tuple[Row, Batch | None]]:
        """Takes steps out that are the same as another, and that a client or a run does not want any more."""
        from dq.crew.withdrawals import belongs

        taken: list[tuple[Row, Batch | None]] = []
        for first in self.open.values():
            its = [
                id
                for id, (_, batch) in first.followers.items()
                if id in ids and belongs(id, batch, owner, self._sup.ledger.flow)
            ]
            taken += [first.followers.pop(id) for id in its]
        return taken

    def restore(self, term: OpenTerm, batch: Batch | None) -> None:
        """A step with a word that an earlier supervisor has left."""
        if term.same_as is not None:
            self._restored.append((term, batch))
            return
        word = (self._label(self._sup.ledger.functions[term.function]), term.dedup or "")
        first = self.open[term.step] = First(term.step, word, term.dedup_until or 0)
        known = self._firsts.get(word)
        if known is None or self._sup.delays.has(term.step):  # what waits for another to take its place came last
            self._firsts[word] = first

    def resume(self) -> None:
        """All that is left is known: what waits for a step that has ended meanwhile ends too."""
        restored, self._restored = self._restored, []
        same_as = {term.step: term.same_as or 0 for term, _ in restored}
        for step, first_id in same_as.items():
            while first_id in same_as:  # it has followers of its own, and another one took its place
                first_id = same_as[first_id]  # noqa: PLW2901 -- that is the way to the first
            same_as[step] = first_id
        outcomes = {record.id: record for record in self._sup.store.results(set(same_as.values()))}
        ended = {row[0] for row in self._committer.group.results}  # nobody here could run them
        orphaned: dict[int, First] = {}
        for term, batch in restored:
            row, first_id = (term.step, 1, term.function, term.args), same_as[term.step]
            record = outcomes.get(first_id)
            if term.step in ended:
                continue
            if record is not None:
                self._end(row, batch, record.status, record.payload)
                continue
            first = self.open.get(first_id)
            if first is None:  # nothing is left of it
                word = (self._label(self._sup.ledger.functions[term.function]), term.dedup or "")
                first = orphaned.setdefault(first_id, First(first_id, word, term.dedup_until or 0))
            first.followers[term.step] = row, batch
        for first in orphaned.values():
            self._pass_on(first)
