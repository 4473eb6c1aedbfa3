"""Work for tests of upkeep: values in side files, steps that fail or die while a file says so."""

from __future__ import annotations

import os
import signal

import dq
from tests.process import flows


@dq.step
def large(number: int) -> bytes:
    """A value that needs a side file."""
    return bytes([number % 256]) * 300_000


@dq.step
def weigh(data: bytes, number: int) -> int:
    return len(data) + data[0] + number


@dq.workflow
def heavy(number: int) -> int:
    return weigh(large(number), number)


@dq.workflow
def held_heavy(folder: str) -> int:
    """Has a side file on record, and then holds."""
    data = large(7)
    return weigh(data, flows.held(folder, "second", 1))


@dq.step(max_crashes=2)
def fragile(folder: str, number: int) -> int:
    """Kills its worker while the file `armed` is there."""
    if os.path.exists(f"{folder}/armed"):
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 2


@dq.step
def picky(folder: str, number: int) -> int:
    if os.path.exists(f"{folder}/armed"):
        raise ValueError(f"no {number} today")
    return number + 1


@dq.workflow
def careful(folder: str) -> int:
    return picky(folder, fragile_free(folder))


@dq.step
def fragile_free(folder: str) -> int:
    flows.note(folder, "begin", "free")
    return 20
