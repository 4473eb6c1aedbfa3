"""What is to be done at a time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

SPARE = 1000  # entries that nobody wants any more may stay in the heap, or as many as there are others


class Entry:
    """Something to be done at a time; its holder may cancel it."""

    __slots__ = ("action", "due", "number")

    def __init__(self, due: float, number: int, action: Callable[[], None]) -> None:
        self.due = due
        self.number = number
        self.action: Callable[[], None] | None = action

    def __lt__(self, other: Entry) -> bool:
        return (self.due, self.number) < (other.due, other.number)


class Timers:
    """Actions by due time, on a clock of the owner's choice."""

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._count = itertools.count()
        self._dead = 0  # cancelled, and still in the heap

    def at(self, due: float, action: Callable[[], None]) -> Entry:
        entry = Entry(due, next(self._count), action)
        heapq.heappush(self._heap, entry)
        return entry

    def cancel(self, entry: Entry) -> None:
        """Sees to it that it is not done. Timeouts that are mostly not needed do not pile up until they are due."""
        if entry.action is not None:
            entry.action = None
            self._dead += 1
            if self._dead > max(SPARE, len(self._heap) // 2):
                self._heap = [entry for entry in self._heap if entry.action is not None]
                heapq.heapify(self._heap)
                self._dead = 0

    def run(self, now: float) -> None:
        """Does what is due."""
        while self._heap and self._heap[0].due <= now:
            entry = heapq.heappop(self._heap)
            action, entry.action = entry.action, None
            if action is not None:
                action()
            else:
                self._dead -= 1

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __len__(self) -> int:
        """Entries in memory."""
        return len(self._heap)

    def timeout(self, now: float) -> float | None:
        """The time until the next one, None if there is none."""
        return max(0.0, self._heap[0].due - now) if self._heap else None
