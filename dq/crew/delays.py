"""Steps that may not begin yet: they were asked for with a delay, or failed and are tried again later.

Their due times are in the file; here is only what must be done at which time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dq.crew.claims import Batch, Row
    from dq.crew.supervisor import Supervisor


class Delays:
    """Rows by step, each until its time has come."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._held: dict[int, tuple[Row, Batch | None]] = {}

    def hold(self, row: Row, batch: Batch | None, due_at: int) -> None:
        """Keeps a row until `due_at`, in microseconds UTC."""
        self._held[row[0]] = row, batch
        self._sup.alarms.at(due_at, lambda: self._release(row[0]))

    def _release(self, step: int) -> None:
        held = self._held.pop(step, None)
        if held is not None:
            self._sup.scheduler.requeue([held])

    def drop(self, ids: Iterable[int]) -> list[Row]:
        """Takes rows out that nobody wants any more."""
        return [self._held.pop(id)[0] for id in ids if id in self._held]

    def __len__(self) -> int:
        return len(self._held)
