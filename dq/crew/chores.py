"""Long work in small slices, between the turns of the supervisor's loop, which it must not hold up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dq.crew.timers import Timers
    from dq.model.clock import Clock

SLICE = 0.002  # seconds that one slice may take
REST, REST_AT_WORK = 0.001, 0.010  # seconds between two slices


class Chores:
    """Does one chore after the other. A chore is an iterator: with each item it says that others may have their turn."""

    def __init__(self, clock: Clock, timers: Timers, at_work: Callable[[], bool]) -> None:
        self._clock = clock
        self._timers = timers
        self._at_work = at_work
        self._waiting: deque[Iterator[None]] = deque()

    def add(self, chore: Iterator[None]) -> None:
        self._waiting.append(chore)
        if len(self._waiting) == 1:
            self._timers.at(self._clock.monotonic(), self._go_on)

    def _go_on(self) -> None:
        chore, end = self._waiting[0], self._clock.monotonic() + SLICE
        try:
            while True:
                next(chore)
                if self._clock.monotonic() >= end:
                    break
        except StopIteration:
            self._waiting.popleft()
        if self._waiting:
            self._timers.at(self._clock.monotonic() + (REST_AT_WORK if self._at_work() else REST), self._go_on)

    def __len__(self) -> int:
        return len(self._waiting)
