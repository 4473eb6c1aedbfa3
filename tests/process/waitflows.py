"""Workflows that wait: for time, for signals, for child runs, and for their end."""

from __future__ import annotations

import itertools
import os

import dq
from tests.process.flows import held, hold, note, plain


@dq.workflow
def sleeper(folder: str, seconds: float) -> int:
    first = plain(folder, "before", 0)
    dq.sleep(seconds)
    return plain(folder, "after", first)


@dq.workflow
def asks(timeout: float | None = None) -> object:
    return dq.wait_signal("answer", timeout=timeout)


@dq.workflow
def asks_twice() -> list[object]:
    return [dq.wait_signal("answer"), dq.wait_signal("answer")]


@dq.workflow
def family(folder: str, count: int) -> list[int]:
    return child.map([folder] * count, range(count))


@dq.workflow
def child(folder: str, number: int) -> int:
    return held(folder, f"child-{number}", plain(folder, f"plain-{number}", number))


@dq.step
def spins(folder: str) -> int:
    """A loop in C, which holds the interpreter's lock and hears no signal that Python handles."""
    note(folder, "begin", "spins", os.getpid())
    return sum(itertools.repeat(0, 1 << 60))


@dq.step
def undo(folder: str) -> str:
    note(folder, "begin", "undo", os.getpid())
    hold(folder, "undo")
    return "undone"


@dq.workflow
def undoes(folder: str, hangs: bool) -> str:
    try:
        spins(folder)
    except dq.Cancelled:
        undone = undo(folder)
        if hangs:
            dq.wait_signal("never")
        return undone
    return "never cancelled"


@dq.workflow(timeout=0.3)
def brief(folder: str) -> None:
    try:
        dq.wait_signal("never")
    except dq.RunTimeout:
        plain(folder, "tidied", 0)
        raise


@dq.workflow
def deep(levels: int) -> int:
    return 1 + deep(levels - 1) if levels else 0


@dq.workflow
def one(number: int) -> int:
    return number


@dq.workflow
def wide(count: int) -> int:
    return sum(one.map(range(count)))


@dq.workflow
def naps(number: int) -> int:
    dq.sleep(36_000)
    return number


@dq.workflow
def dormitory(count: int) -> list[int]:
    return naps.map(range(count))
