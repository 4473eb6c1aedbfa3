"""Where time comes from, so that tests can hand in their own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two views of time: one that means the same on every machine, one that never jumps."""

    def now(self) -> int:
        """Microseconds since 1970 in UTC: what is recorded. May jump when the system's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point: what deadlines are measured with. Never goes back."""
        ...


class SystemClock:
    """The machine's own clocks.

    >>> SystemClock().now() > 1_700_000_000_000_000
    True
    """

    def now(self) -> int:
        """Microseconds since 1970 in UTC."""
        return time.time_ns() // 1000

    monotonic = staticmethod(time.monotonic)  # asked a hundred times for each result, so without a call in between
