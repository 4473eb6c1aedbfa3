"""Steps with queues for tests of whole processes: each body logs when it began and when it ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dq
from tests.process.flows import hold, note

narrow = dq.Queue("narrow", concurrency=2)
slow = dq.Queue("slow", rate=(3, 0.5))
door = dq.Queue("door", concurrency=8)


@dq.step(queue=narrow, max_crashes=50)
def careful(folder: str, name: str, seconds: float) -> int:
    begun = time.monotonic_ns()
    note(folder, "in", name, os.getpid(), begun)
    time.sleep(seconds)
    note(folder, "out", name, os.getpid(), time.monotonic_ns())
    return os.getpid()


@dq.step(queue=slow)
def metered(folder: str, name: str) -> None:
    note(folder, "in", name, os.getpid(), time.monotonic_ns())


@dq.step(queue=door)
def guarded(folder: str, name: str) -> str:
    note(folder, "begin", name, os.getpid())
    return name


@dq.step
def once(folder: str, name: str) -> int:
    note(folder, "begin", name, os.getpid())
    hold(folder, name)
    return os.getpid()


@dq.workflow
def asks_once(folder: str, name: str) -> int:
    return once.options(dedup=name)(folder, name)


@dq.workflow
def trivial(number: int) -> int:
    return number + 1


@dq.step
def noop() -> None:
    pass


@dq.step
def echo(number: int) -> int:
    return number


def visits(folder: Path) -> list[tuple[int, int, str]]:
    """(nanoseconds, +1 or -1, name) of bodies that came in and went out, in order.

    A body that never went out was killed: it is out when its process was dead, which was before it came in again, or at
    the end.
    """
    moves: list[tuple[int, int, str]] = []
    for line in Path(folder, "log").read_text().splitlines():
        what, name, _pid, at = line.split()
        moves.append((int(at), 1 if what == "in" else -1, name))
    return sorted(moves)
