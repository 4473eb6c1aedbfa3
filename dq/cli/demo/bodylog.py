"""The demo's log: who began and ended which body, who was told which result, who was killed.

One line is one JSON array, written with one `write` to a file opened for appending, so that a kill leaves no half line:

    ["begin", step, attempt, epoch, pid, ns, label]
    ["end",   step, attempt, epoch, pid, ns, digest of the result]
    ["told",  label, digest, pid, ns]
    ["killed", kind, pid, ns]

`ns` is the machine's monotonic clock, which all processes share. A label names what a step does: "file:abc.py".
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from dq.cli.demo.measure import digest
from dq.executor.current import current

P = ParamSpec("P")
R = TypeVar("R")

_open: dict[tuple[int, str], int] = {}  # (pid, log) -> descriptor: a forked copy opens its own


def _append(log: str, *row: object) -> None:
    key = (os.getpid(), log)
    fd = _open.get(key)
    if fd is None:
        fd = _open[key] = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(fd, json.dumps(row).encode() + b"\n")


def logged(log: str, label: str, body: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs the body of a step between its begin and its end in the log."""
    info = current()
    who = (info.step, info.attempt, info.epoch, os.getpid())
    _append(log, "begin", *who, time.monotonic_ns(), label)
    value = body(*args, **kwargs)
    _append(log, "end", *who, time.monotonic_ns(), digest(value))
    return value


def told(log: str, label: str, value: R) -> R:
    """Notes that a result has arrived where it was wanted. From then on it must never be lost."""
    _append(log, "told", label, digest(value), os.getpid(), time.monotonic_ns())
    return value


def killed(log: str, kind: str, pid: int) -> None:
    """Notes that a process was killed and is dead."""
    _append(log, "killed", kind, pid, time.monotonic_ns())


class Tail:
    """A follower of the log: what has ended so far, and which process is in the middle of which body."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._at = 0
        self._half = b""
        self.done: set[int] = set()  # steps whose body reached its end at least once
        self.began = 0  # bodies, those that were cut off included
        self.working: dict[int, int] = {}  # pid -> the step whose body it began and did not end

    def read(self) -> Tail:
        """Takes in what was written since the last call."""
        try:
            with open(self._log, "rb") as file:
                file.seek(self._at)
                fresh = file.read()
        except FileNotFoundError:
            return self
        self._at += len(fresh)
        *lines, self._half = (self._half + fresh).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return self

    def _take(self, row: list[Any]) -> None:
        if row[0] == "begin":
            self.began += 1
            self.working[row[4]] = row[1]
        elif row[0] == "end":
            self.done.add(row[1])
            self.working.pop(row[4], None)
