"""Leaps of the system's clock: it was set, or the machine was asleep.

What is recorded has times of the system's clock, since nothing else means the same after a restart. So a leap moves them
against what has passed. Nothing is done early by that clock and nothing is lost; people are told, since they wonder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dq.crew.queues import Queues
    from dq.model.clock import Clock

SMALL = 0.5  # seconds; a clock that is kept right by steps of less than that is no leap
WORTH_TELLING = 60.0  # seconds


class Leaps:
    """Compares the two clocks from time to time."""

    def __init__(self, clock: Clock, queues: Queues, notice: Callable[[str], None]) -> None:
        self._clock = clock
        self._queues = queues
        self._notice = notice
        self._offset = self._now()

    def _now(self) -> float:
        """Seconds between the clock that may be set and the one that may not."""
        return self._clock.now() / 1e6 - self._clock.monotonic()

    def look(self) -> None:
        """Has those look again who wait for a time that has moved away from them."""
        offset = self._now()
        leap, self._offset = offset - self._offset, offset
        if abs(leap) < SMALL:
            return
        self._queues.clock_was_set()
        if leap >= WORTH_TELLING:
            self._notice(
                f"the system's clock has leapt forward by {_told(leap)}: it was set, or this machine was asleep. Timers, "
                "delays, deadlines and schedules go by it, and what is due by now is done now; limits of attempts do not."
            )
        elif leap <= -WORTH_TELLING:
            self._notice(
                f"the system's clock was set back by {_told(-leap)}. Timers, delays, deadlines and schedules go by it, so what "
                "was about to be due is due that much later; limits of attempts do not. `dq doctor` tells what lies far ahead."
            )


def _told(seconds: float) -> str:
    for name, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
