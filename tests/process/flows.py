"""Workflows for tests that kill: each body logs its begin and end, and some hold until the test lets them go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dq

HOLD_MAX = 60.0  # seconds that a body holds, should the test forget it


def note(folder: str, *words: object) -> None:
    """One line in the log, whole or not at all, whoever is killed."""
    fd = os.open(f"{folder}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (" ".join(map(str, words)) + "\n").encode())
    os.close(fd)


def lines(folder: str | Path) -> list[str]:
    try:
        return Path(folder, "log").read_text().splitlines()
    except FileNotFoundError:
        return []


def begins(folder: str | Path, name: str) -> int:
    return sum(line.split()[:2] == ["begin", name] for line in lines(folder))


def ends(folder: str | Path, name: str) -> int:
    return sum(line.split()[:2] == ["end", name] for line in lines(folder))


def hold(folder: str, name: str) -> None:
    """Holds until the file `open-NAME` is there, the first time; a second one goes through."""
    if begins(folder, name) > 1:
        return
    deadline = time.monotonic() + HOLD_MAX
    while not os.path.exists(f"{folder}/open-{name}") and time.monotonic() < deadline:
        time.sleep(0.002)


@dq.step
def plain(folder: str, name: str, value: int) -> int:
    note(folder, "begin", name, os.getpid())
    note(folder, "end", name, os.getpid())
    return value + 1


@dq.step
def held(folder: str, name: str, value: int) -> int:
    note(folder, "begin", name, os.getpid())
    hold(folder, name)
    note(folder, "end", name, os.getpid())
    return value * 10


@dq.step(max_crashes=3)
def deadly(folder: str, name: str) -> None:
    note(folder, "begin", name, os.getpid())
    os.kill(os.getpid(), 9)


@dq.workflow
def three(folder: str) -> int:
    """Before, the step that holds, after: 1, 10, 11."""
    first = plain(folder, "first", 0)
    second = held(folder, "second", first)
    return plain(folder, "third", second)


@dq.workflow
def between(folder: str) -> int:
    """Holds in the workflow itself, so in its host, between two steps: 1, 2."""
    first = plain(folder, "first", 0)
    note(folder, "begin", "workflow", os.getpid())
    hold(folder, "workflow")
    note(folder, "end", "workflow", os.getpid())
    return plain(folder, "second", first)


@dq.workflow
def wide(folder: str, count: int) -> list[int]:
    return held.map([folder] * count, [f"w{n}" for n in range(count)], range(count))


@dq.step
def one() -> int:
    return 1


@dq.workflow
def single() -> int:
    return one()


@dq.workflow
def poisoned(folder: str) -> str:
    try:
        deadly(folder, "deadly")
    except dq.StepCrashed as error:
        return str(error)
    return "survived"


@dq.step
def spin(folder: str, name: str) -> int:
    """Works in bytecode, with a beating heart, until the test lets it go."""
    note(folder, "begin", name, os.getpid())
    hold(folder, name)
    return os.getpid()


@dq.step
def heavy(folder: str, name: str, size: int) -> bytes:
    note(folder, "begin", name, os.getpid())
    hold(folder, name)
    return bytes(size)


@dq.step
def weigh(data: bytes) -> int:
    return len(data)


@dq.workflow
def handing_on(folder: str, size: int) -> int:
    """Holds in its host, and then hands a large argument to a step."""
    note(folder, "begin", "workflow", os.getpid())
    hold(folder, "workflow")
    return weigh(bytes(size))
