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


@dq.step
def too_deep() -> list[Any]:
    nest: list[Any] = []
    for _ in range(100_000):
        nest = [nest]
    return nest


@dq.workflow
def locked_step() -> object:
    return makes_a_lock()


@dq.workflow
def locked_argument() -> int:
    return double(threading.Lock())  # type: ignore[arg-type]


@dq.workflow
def locked_result() -> object:
    return threading.Lock()


@dq.workflow
def doubled(number: int) -> int:
    return double(number)


@dq.workflow
def million(count: int) -> int:
    return sum(double.map(range(count)))
