"""What happened, one JSON object a line, each written with one `write` to a file opened for appending.

A kill leaves no half line, and who is killed has not to be asked afterwards. `ns` is the machine's monotonic clock, which all
processes share, `at` microseconds since 1970 in UTC. What there is:

    start    a client is about to start a run: run, expect (the result that is known), must and may (see `oracle.py`)
    started  that was acknowledged
    signal   a client is about to send a signal: run, name; signalled: that was acknowledged
    cancel   the same for a cancel; cancelled
    alone    a client submits steps that no run asks for: work, must; flushed: all of it was acknowledged; heard: right
    told     a client has got the result of a run: run, digest (of the recorded bytes), right, or error
    begin    a body begins: step, attempt, epoch, pid, label, alone (nobody else was in this step)
    end      it has come to its end: step, epoch, pid, ok (it returned), value
    seen     somebody was seen in the slots file to be at a step: step, epoch, pid
    overlap  two living processes were seen to be at one step: step
    kill     a process was killed and is dead: kind, pid
    stop     a process was stopped for some seconds and went on: kind, pid, seconds
    drained  the engine has stopped: left (processes that are still there)
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from dq.executor.current import current

P = ParamSpec("P")
R = TypeVar("R")

_open: dict[tuple[int, str], int] = {}  # (pid, path) -> descriptor: a forked copy opens its own


def note(log: str, what: str, **told: Any) -> None:
    """Appends a line."""
    row = {"what": what, "ns": time.monotonic_ns(), "pid": os.getpid(), **told}
    os.write(_descriptor(log), json.dumps(row).encode() + b"\n")


def watched(log: str, label: str, body: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs the body of a step between its begin and its end in the history.

    A lock that the kernel takes away with the process tells whether anybody else is in the same step at this moment.
    """
    info = current()
    locks = _descriptor(log + ".locks")
    alone = _lock(locks, info.step)
    who = {"step": info.step, "epoch": info.epoch}
    note(log, "begin", **who, attempt=info.attempt, label=label, alone=alone, at=time.time_ns() // 1000)
    ok, value = False, None
    try:
        value = body(*args, **kwargs)
        ok = True
        return value
    finally:
        note(log, "end", **who, ok=ok, value=value if isinstance(value, int) else None)
        if alone:
            fcntl.lockf(locks, fcntl.LOCK_UN, 1, info.step)


def _lock(locks: int, step: int) -> bool:
    try:
        fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, step)
    except OSError:
        return False
    return True


def _descriptor(path: str) -> int:
    key = (os.getpid(), path)
    fd = _open.get(key)
    if fd is None:
        fd = _open[key] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return fd
