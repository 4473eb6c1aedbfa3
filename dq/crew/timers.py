"""What is to be done at a time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Timers:
    """Actions by due time, on a clock of the owner's choice."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def at(self, due: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (due, next(self._count), action))

    def run(self, now: float) -> None:
        """Does what is due."""
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()

    def __bool__(self) -> bool:
        return bool(self._heap)

    def timeout(self, now: float) -> float | None:
        """The time until the next one, None if there is none."""
        return max(0.0, self._heap[0][0] - now) if self._heap else None
