"""Steps that may not begin yet: they were asked for with a delay, or failed and are tried again later.

Their due times are in the file; here is only what must be done at which time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dq.crew.withdrawals import belongs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dq.crew.claims import Batch, Row
    from dq.crew.ledger import Run
    from dq.crew.peer import Peer
    from dq.crew.supervisor import Supervisor

FAR = 253_370_764_800_000_000  # the year 9999, in microseconds UTC: until somebody says so


class Delays:
    """Rows by step, each until its time has come."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._held: dict[int, tuple[Row, Batch | None]] = {}

    def hold(self, row: Row, batch: Batch | None, due_at: int) -> None:
        """Keeps a row until `due_at`, in microseconds UTC."""
        self._held[row[0]] = row, batch
        if due_at < FAR:
            self._sup.alarms.at(due_at, lambda: self.release(row[0]))

    def release(self, step: int) -> None:
        """Lets a row go, if it is here."""
        held = self._held.pop(step, None)
        if held is None:
            return
        row, batch = held
        function = self._sup.ledger.functions[row[2]]
        if self._sup.scheduler.lane(function) is None:
            self._sup.results.no_executor(function, [row], batch)
        else:
            self._sup.scheduler.requeue([held])

    def has(self, step: int) -> bool:
        """Whether a row is here."""
        return step in self._held

    def give_up(self, step: int) -> tuple[Row, Batch | None] | None:
        """Takes a row out that has not begun, and in whose place another one waits; None where it is too late."""
        held = self._held.get(step)
        return self._held.pop(step) if held is not None and held[0][1] == 1 else None

    def take(self, owner: Peer | Run, ids: Iterable[int]) -> list[tuple[Row, Batch | None]]:
        """Takes rows out that a client or a run does not want any more."""
        found = [self._held[id] for id in ids if id in self._held]
        taken = [(row, batch) for row, batch in found if belongs(row[0], batch, owner, self._sup.ledger.flow)]
        for row, _ in taken:
            del self._held[row[0]]
        return taken

    def __len__(self) -> int:
        return len(self._held)
