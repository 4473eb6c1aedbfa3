"""What steps wait for besides a worker: taken down, and held back until it is so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dq.store.group import TermRow

if TYPE_CHECKING:
    from dq.crew.claims import Batch, Row
    from dq.crew.supervisor import Supervisor
    from dq.executor.frames import Term


class Terms:
    """Writes terms down, and sorts out which rows may be queued now."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor

    def recall(self, rows: list[Row], batch: Batch | None) -> list[Row]:
        """Rows that come from the file. Returns those that may be queued now."""
        terms = self._sup.store.terms([row[0] for row in rows])
        if not terms:
            return rows
        now = self._sup.clock.now()
        ready: list[Row] = []
        for row in rows:
            term = terms.get(row[0])
            if term is not None and term.due_at is not None and term.due_at > now:
                self._sup.delays.hold(row, batch, term.due_at)
            else:
                ready.append(row)
        return ready

    def take(self, rows: list[Row], batch: Batch | None, terms: dict[int, Term]) -> list[Row]:
        """New rows, some of them with terms. Returns those that may be queued now."""
        now = self._sup.clock.now()
        ready: list[Row] = []
        for row in rows:
            term = terms.get(row[0])
            if term is None:
                ready.append(row)
                continue
            due_at = max(term.at, now + term.after if term.after else 0)
            self._sup.committer.group.terms.append(TermRow(row[0], due_at or None, term.priority, term.key))
            if due_at > now:
                self._sup.delays.hold(row, batch, due_at)
            else:
                ready.append(row)
        return ready
