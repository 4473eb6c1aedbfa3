"""Ordered results of one step for many items, with a bounded number of them under way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dq.client.steps import Ordered
from dq.errors import Cancelled
from dq.flow.decorators import Step
from dq.model.states import CANCELLED, COMPLETED

if TYPE_CHECKING:
    from dq.client.connection import Connection

FIRST = 256  # items under way before the size of a result is known
LEAST, MOST = 64, 8192
HELD_MAX = 32 << 20  # bytes of results that wait to be taken


class Stream:
    """See the module. Begins to submit when it is made.

    Args:
        items: One tuple of arguments for each step.
        ahead: How many steps may be under way; None to let it follow from the size of results, 0 for all at once.
        timeout: Seconds from now in which every result must be there.
    """

    def __init__(
        self,
        line: Connection,
        step: Any,
        items: Iterator[tuple[Any, ...]],
        *,
        ahead: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self._line = line
        self._step = step
        self._items = items
        self._ahead = ahead
        self._until = None if timeout is None else time.monotonic() + timeout
        self._ids: deque[int] = deque()
        self._entry = Ordered()
        self._exhausted = False
        self._window = FIRST
        self._fill()

    def results(self) -> Iterator[Any]:
        """The results in order. Raises what a step raised, Cancelled, TimeoutError."""
        codec = self._line.codec
        ids = self._ids
        try:
            while ids:
                status, payload = self._entry.take(ids[0], self._left())
                ids.popleft()
                if status == COMPLETED:
                    yield codec.loads(payload)
                elif status == CANCELLED:
                    raise Cancelled("the step was cancelled")
                else:
                    raise codec.restore(payload)
                if not self._exhausted and len(ids) <= self._window // 2:
                    self._fill()
        finally:
            self._entry.closed = True
            self._line.withdraw(list(ids))

    def _left(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def _fill(self) -> None:
        """Submits up to the window, and makes it as wide as memory allows."""
        self._widen()
        room = None if self._ahead == 0 else max(1, self._window - len(self._ids))
        table, send, entry, step = self._line.table, self._line.send, self._entry, self._step
        settings = step.settings if isinstance(step, Step) and step.has_term else None
        while room is None or room > 0:
            item = next(self._items, None)
            if item is None:
                self._exhausted = True
                return
            try:
                number = table.cache[step]
            except (KeyError, TypeError):
                self._ids.append(send(*table.call(step, item, {}), entry, settings))
            else:
                self._ids.append(send(number, item, {}, entry))
            if room is not None:
                room -= 1

    def _widen(self) -> None:
        entry = self._entry
        if self._ahead:
            self._window = self._ahead
        elif entry.count:
            self._window = max(LEAST, min(MOST, HELD_MAX * entry.count // max(entry.bytes, 1)))
