"""How tests wait: for a condition with a limit, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE = 0.005  # seconds between two looks


def wait_until(predicate: Callable[[], T], timeout: float = 20.0, what: str = "") -> T:
    """Looks at a condition until it holds and returns its value.

    Args:
        predicate: The condition; it holds when its value is true.
        timeout: Seconds until the wait fails.
        what: What is waited for, for the message.

    Raises:
        AssertionError: The condition did not hold in time; the message shows its last value.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            name = what or getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"{name} did not come true in {timeout:g} s; last value: {value!r}")
        time.sleep(_PAUSE)
