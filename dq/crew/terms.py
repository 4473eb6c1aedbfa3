"""What steps wait for besides a worker: taken down, and held back until it is so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dq.store.group import TermRow

if TYPE_CHECKING:
    from dq.crew.claims import Batch, Row, Segment
    from dq.crew.queues import Place
    from dq.crew.supervisor import Supervisor
    from dq.executor.frames import Term


class Terms:
    """Writes terms down, and sorts out which rows may be queued now."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor

    def recall(self, rows: list[Row], segment: Segment) -> list[Row]:
        """Rows that come from the file. Returns those that may be queued now, where the segment stands.

        What waits elsewhere, or is the same as another step, was put there when the file was taken over.
        """
        terms = self._sup.store.terms([row[0] for row in rows])
        rows = self._sup.attempts.recall(rows, terms)
        if not terms:
            return rows
        now = self._sup.clock.now()
        here = (segment.priority, segment.gate.key if segment.gate is not None else "")
        ready: list[Row] = []
        for row in rows:
            term = terms.get(row[0])
            if term is None:
                ready.append(row)
            elif term.same_as is not None or (term.priority, term.key) != here or (term.dedup and term.due_at):
                continue
            elif term.due_at is not None and term.due_at > now:
                self._sup.delays.hold(row, segment.batch, term.due_at)
            else:
                ready.append(row)
        return ready

    def take(self, rows: list[Row], batch: Batch | None, terms: dict[int, Term]) -> list[Row]:
        """New rows, some of them with terms. Returns those that may be queued now with all others of their function."""
        now = self._sup.clock.now()
        ready: list[Row] = []
        placed: dict[tuple[int, Place], list[Row]] = {}
        for row in rows:
            term = terms.get(row[0])
            if term is None:
                ready.append(row)
                continue
            after = max(term.after, term.debounce)
            due_at = max(term.at, now + after if after else 0)
            told = TermRow(row[0], due_at or None, term.priority, term.key)
            if term.dedup:
                told = self._sup.dedups.take(row, batch, term, told, now)
            self._sup.committer.group.terms.append(told)
            function = self._sup.ledger.functions[row[2]]
            place = self._sup.queues.place_for(function, term.priority, term.key)
            if told.same_as is not None:
                continue
            if due_at > now:
                self._sup.delays.hold(row, batch, due_at)
            elif place is not None:
                placed.setdefault((row[2], place), []).append(row)
            else:
                ready.append(row)
        for (number, place), part in placed.items():
            self._queue(number, place, part, batch)
        return ready

    def _queue(self, number: int, place: Place, rows: list[Row], batch: Batch | None) -> None:
        if not self._sup.options.workers:
            return  # this supervisor only takes down what others will do
        function = self._sup.ledger.functions[number]
        lane = self._sup.scheduler.lane(function)
        if lane is None:
            self._sup.results.no_executor(function, rows, batch)
            return
        run = None
        owner = batch.owner.fd if batch is not None and batch.owner is not None else 0
        if batch is None:
            runs = {self._sup.ledger.flow[row[0]] for row in rows}
            host = next(iter(runs)).host
            owner = -1 - host.slot if host is not None else 0
            run = runs.pop() if len(runs) == 1 else None
        self._sup.scheduler.enqueue(lane, owner, rows, batch, run, place=place)
