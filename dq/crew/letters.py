"""Dead letters: what clients ask of steps and runs that ended badly."""

from __future__ import annotations

import heapq
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dq.executor import frames
from dq.model.states import RunState, StepState
from dq.store.group import LetterRow

if TYPE_CHECKING:
    from dq.crew.chores import Chores
    from dq.crew.clients import Client, Clients
    from dq.crew.supervisor import Supervisor
    from dq.store.letters import LetterLine
    from dq.store.surveys import StepRecord


class Letters:
    """Answers clients. All that they ask may come twice, after a reconnect: ids say whether it is done already."""

    def __init__(self, supervisor: Supervisor, clients: Clients, chores: Chores) -> None:
        self._sup = supervisor
        self._clients = clients
        self._chores = chores
        self._store = supervisor.store
        self._committer = supervisor.committer
        self.handlers: dict[type, Callable[[Client, Any], None]] = {
            frames.ListDead: self._asked, frames.RetryStep: self._retry, frames.Discard: self._discard,
        }  # fmt: skip

    def _asked(self, client: Client, message: frames.ListDead) -> None:
        self._chores.add(self._list(client, message))

    def _list(self, client: Client, message: frames.ListDead) -> Iterator[None]:
        """Looks through the file for them, newest first; each item is the end of a slice."""
        if self._committer.dirty:
            self._committer.commit()
        newest: list[tuple[int, int, LetterLine]] = []
        for page in self._store.letters():
            for line in page:
                if line.state == "open" or message.all:
                    keep = heapq.heappush if len(newest) < message.limit else heapq.heappushpop
                    keep(newest, (line.ended_at, line.id, line))
            yield
        lines = [frames.Letter(*line) for _, _, line in sorted(newest, reverse=True)]
        self._clients.answer(client, frames.Dead(message.ticket, lines))

    def _retry(self, client: Client, message: frames.RetryStep) -> None:
        """Submits once more what a step was to do, under a new id."""
        if self._committer.dirty:
            self._committer.commit()
        if self._store.known_steps([message.id]):
            self._done(client, message.ticket, f"step {message.step} is tried again as step {message.id}")
            self._clients.take_over(client, {message.id})
            return
        record = self._store.step_record(message.step)
        why = self._refusal(message.step, record)
        if why or record is None:
            self._refuse(client, message.ticket, why)
            return
        self._done(client, message.ticket, f"step {message.step} is tried again as step {message.id}")
        if not client.owns_fresh([(message.id, 0, b"")]):
            self._clients.admit(client, message.id)
        function = self._sup.ledger.functions[record.function]
        client.functions[-function.id] = function  # clients' own numbers are never negative
        old = self._store.terms([message.step]).get(message.step)
        terms = [frames.Term(message.id, priority=old.priority, key=old.key)] if old is not None else []
        self._clients.accept(client, [(message.id, -function.id, record.args)], terms)
        self._deal(message.step, "retried", message.id)

    def _refusal(self, step: int, record: StepRecord | None) -> str:
        """Why a step can't be retried by itself, "" where it can."""
        db = shlex.quote(self._sup.options.db)
        if record is None:
            return f"there is no step {step} in the file. Dead letters: `dq dead ls --db {db}`"
        if record.run is not None:
            run = shlex.quote(record.run_name)
            return f"step {step} belongs to run {run}, and is retried with it: `dq dead retry {run} --db {db}`"
        if record.state not in (StepState.DEAD, StepState.FAILED):
            return f"step {step} is {record.state or 'not ended'}; only a step that failed or is dead is retried"
        dealt = self._store.letter(step)
        if dealt is not None and dealt[0] == "retried":
            return f"step {step} is tried again already, as step {dealt[1]}: `dq show {dealt[1]} --db {db}`"
        return ""

    def _discard(self, client: Client, message: frames.Discard) -> None:
        if self._committer.dirty:
            self._committer.commit()
        id, why = self._find(message)
        if why:
            self._refuse(client, message.ticket, why)
            return
        what = f"run {message.run}" if message.run else f"step {message.step}"
        dealt = self._store.letter(id)
        if dealt is None:
            self._deal(id, "discarded", None)
        state = dealt[0] if dealt is not None else "discarded"
        self._done(client, message.ticket, f"{what} is {state}")

    def _find(self, message: frames.Discard) -> tuple[int, str]:
        """The id of what is to be discarded, or why it can't be."""
        if message.run:
            run = self._store.find_run(message.run)
            if run is None:
                return 0, f"there is no run {message.run!r} in the file"
            bad = run.state == RunState.FAILED
            return run.id, "" if bad else f"run {run.name!r} is {run.state}, and no dead letter"
        record = self._store.step_record(message.step)
        if record is None:
            return 0, f"there is no step {message.step} in the file"
        bad = record.state == StepState.DEAD or (record.state == StepState.FAILED and record.run is None)
        return message.step, "" if bad else f"step {message.step} is {record.state or 'not ended'}, and no dead letter"

    def _deal(self, id: int, state: str, successor: int | None) -> None:
        self._committer.group.letters.append(LetterRow(id, state, successor, self._sup.clock.now()))
        self._committer.dirty = True

    def _done(self, client: Client, ticket: int, text: str) -> None:
        self._clients.answer(client, frames.Done(ticket, text))

    def _refuse(self, client: Client, ticket: int, why: str) -> None:
        self._clients.answer(client, frames.Refused(ticket, "NoSuchLetter", why))
