"""The steps that random programs are made of. Each does a little, and says in the history when it begins and ends."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import tenacity

import dq
from dq.cli.chaos.history import watched
from dq.cli.chaos.programs import mix

# Whatever the killer hits, however often, it is no fault of the step: none is ever to be quarantined.
_ENDURING = 1_000_000
_HANG = 20.0  # seconds; whoever has to wait for that has not been cancelled
TABLE = "CREATE TABLE IF NOT EXISTS chaos_row (place TEXT NOT NULL) STRICT"

IO = "io"  # the executor with threads

step = dq.step(max_crashes=_ENDURING)
narrow = dq.Queue("chaos-narrow", concurrency=1)


def label(at: str, number: int | None = None) -> str:
    """What a step is called in the history: its place in the program."""
    return at if number is None else f"{at}#{number}"


def _work(value: int, at: str, number: int = 0) -> int:
    time.sleep(0.001)  # so that a kill meets bodies that run
    return mix(value, at, number)


@step
def add(log: str, at: str, value: int) -> int:
    return watched(log, at, _work, value, at)


@step
def item(log: str, at: str, value: int, number: int) -> int:
    return watched(log, label(at, number), _work, value, at, number)


@dq.step(max_crashes=_ENDURING, queue=narrow)
def queued(log: str, at: str, value: int, number: int) -> int:
    return watched(log, label(at, number), _work, value, at, number)


@dq.step(max_crashes=_ENDURING, executor=IO)
def threaded(log: str, at: str, value: int, number: int) -> int:
    return watched(log, label(at, number), _work, value, at, number)


def _advance(value: int, at: str, count: int) -> int:
    for done in range(dq.current().cursor or 0, count):
        dq.progress(done + 1)
    return mix(value, at)


@step
def cursor(log: str, at: str, value: int, count: int) -> int:
    return watched(log, at, _advance, value, at, count)


def _fail(value: int, at: str, failures: int) -> int:
    if dq.current().attempt <= failures:
        raise ValueError(at)
    return mix(value, at)


@dq.step(max_crashes=_ENDURING, wait=tenacity.wait_fixed(0.01))
def retried(log: str, at: str, value: int, failures: int) -> int:
    return watched(log, at, _fail, value, at, failures)


@step
def failing(log: str, at: str) -> int:
    return watched(log, at, _fail, 0, at, _ENDURING)


def _crash(value: int, at: str, crashes: int) -> int:
    if dq.current().attempt <= crashes:
        os.kill(os.getpid(), signal.SIGKILL)
    return mix(value, at)


@step
def crashing(log: str, at: str, value: int, crashes: int) -> int:
    return watched(log, at, _crash, value, at, crashes)


def _hang() -> int:
    end = time.monotonic() + _HANG
    while time.monotonic() < end:
        time.sleep(0.01)
    return 0


@dq.step(max_crashes=_ENDURING, timeout=0.15)
def slow(log: str, at: str) -> int:
    return watched(log, at, _hang)


@step
def hanging(log: str, at: str) -> int:
    return watched(log, at, _hang)


@dq.step(max_crashes=_ENDURING, queue=narrow)
def clogging(log: str, at: str, number: int) -> int:
    return watched(log, label(at, number), _hang)


@step
def make(size: int) -> bytes:
    """So many KiB."""
    return bytes(size << 10)


@step
def weigh(log: str, at: str, value: int, data: bytes, size: int) -> int:
    if len(data) != size << 10:
        raise RuntimeError(f"{at}: {len(data)} bytes came of {size} KiB")
    return watched(log, at, _work, value, at)


def _echo(value: int, at: str, told: Any) -> tuple[int, Any]:
    return mix(value, at), told


@step
def echo(log: str, at: str, value: int, told: Any) -> tuple[int, Any]:
    return watched(log, at, _echo, value, at, told)


@step
def count() -> int:
    """What differs each time; a replay must get what was recorded."""
    [(rows,)] = dq.read("SELECT count(*) FROM chaos_row")
    return int(rows)


def _write(value: int, at: str) -> int:
    dq.write("INSERT INTO chaos_row VALUES (?)", (at,))
    return mix(value, at)


@step
def write(log: str, at: str, value: int) -> int:
    return watched(log, at, _write, value, at)


def _order(log: str, value: int, at: str) -> int:
    dq.enqueue(ordered, log, at + "o")
    return mix(value, at)


@step
def order(log: str, at: str, value: int) -> int:
    return watched(log, at, _order, log, value, at)


@step
def ordered(log: str, at: str) -> int:
    return watched(log, at, _write, 0, at)


def _tell(run: str, at: str) -> int:
    dq.signal(run, at, mix(0, at))
    return 0


@step
def tell(log: str, at: str, run: str) -> int:
    return watched(log, at, _tell, run, at)


@step
def undo(log: str, at: str) -> int:
    return watched(log, at, _work, 0, at)
