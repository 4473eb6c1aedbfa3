"""Steps and workflows of short scenarios: they say in the history when they begin and end, and wait for a gate to be opened."""

from __future__ import annotations

import os
import time

import dq
from dq.cli.chaos.history import watched

HOLD_MAX = 60.0  # seconds that a body holds, should the test forget it


def _hold(log: str, gate: str) -> int:
    deadline = time.monotonic() + HOLD_MAX
    while not os.path.exists(f"{log}.{gate}") and time.monotonic() < deadline:
        time.sleep(0.002)
    return 1


@dq.step(max_crashes=100)
def held(log: str, label: str, *gates: str) -> int:
    """Holds until the gate of its attempt is open: a file beside the history."""
    gate = gates[min(dq.current().attempt, len(gates)) - 1]
    return watched(log, label, _hold, log, gate)


@dq.step(max_crashes=1000)
def brief(log: str, label: str, number: int) -> int:
    """Works for some milliseconds."""
    return watched(log, label, _work, number)


def _work(number: int) -> int:
    until = time.monotonic() + 0.003
    while time.monotonic() < until:
        sum(range(100))
    return number


@dq.workflow
def nothing() -> None:
    """Ends at once."""
