"""Steps and workflows that hand over what can't travel, or end their process."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from typing import Any

import dq


@dq.step
def double(number: int) -> int:
    return 2 * number


@dq.step
def makes_a_lock() -> dict[str, Any]:
    return {"rows": [1, threading.Lock()]}


@dq.step
def exits() -> None:
    sys.exit(3)


@dq.step(max_crashes=2)
def exits_hard() -> None:
    os._exit(7)


@dq.step(max_crashes=2)
def crashes() -> None:
    ctypes.string_at(0)


@dq.step
def many_bytes(count: int) -> bytes:
    return bytes(range(256)) * (count // 256)


@dq.step
def length(data: bytes) -> int:
    return len(data)


class Report:
    """Holds a lock where nobody would look for it."""

    def __init__(self) -> None:
        self.rows: list[Any] = [1, 2, 3, Row()]


class Row:
    def __init__(self) -> None:
        self.lock = threading.Lock()


class Shy:
    def __reduce__(self) -> Any:
        raise ZeroDivisionError("not today")


class Bomb:
    """Ends whoever unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (9,)


class Link:
    def __init__(self, next: Link | None) -> None:
        self.next = next


def nest() -> list[Any]:
    """A list in a list in a list, a hundred thousand times."""
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


def take_apart(nest: list[Any]) -> None:
    """Bit by bit, since tearing it down at once recurses too."""
    while nest:
        nest = nest.pop()


@dq.step
def same(value: Any) -> Any:
    return value


@dq.step
def makes_a_shy_one() -> dict[str, Any]:
    return {"shy": Shy()}


@dq.step
def too_deep() -> list[Any]:
    return nest()


@dq.step
def too_long() -> Link | None:
    found = None
    for _ in range(3000):
        found = Link(found)
    return found


@dq.workflow
def deep_argument() -> Any:
    return same(nest())


@dq.workflow
def deep_result() -> Any:
    return nest()


@dq.workflow
def cautious() -> int:
    try:
        same(threading.Lock())
    except dq.NotPicklable:
        return double(21)
    return 0


@dq.workflow
def exiting() -> None:
    sys.exit(4)


@dq.workflow
def exiting_step() -> None:
    exits()


@dq.workflow
def crashing_step() -> None:
    crashes()


@dq.workflow
def exiting_hard() -> None:
    os._exit(5)


@dq.workflow
def measured(data: bytes) -> int:
    return length(data)


@dq.workflow
def locked_step() -> object:
    return makes_a_lock()


@dq.workflow
def locked_argument() -> int:
    return double(threading.Lock())  # type: ignore[arg-type]


@dq.workflow
def locked_result() -> object:
    return Report()


@dq.workflow
def doubled(number: int) -> int:
    return double(number)


@dq.workflow
def million(count: int) -> int:
    return sum(double.map(range(count)))


@dq.step
def negated(array: Any) -> Any:
    return -array


@dq.workflow
def carried(data: bytes) -> Any:
    return same(data)
