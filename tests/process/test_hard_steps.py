"""Steps that do their worst to their worker, their group, the machine's limits: they end as told, and others go on."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import dq
from tests.process import flows
from tests.process.crews import rows, state
from tests.process.test_hangs import sleeper
from tests.waiting import wait_until

ATTEMPTS = "SELECT outcome, charged, cause FROM dq_attempt ORDER BY attempt"


def backtracks() -> None:
    """A regular expression that takes ages, in C, with the interpreter's lock held."""
    re.match(r"(a+)+b", "a" * 60)


def ignores_signals() -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.sigwait([signal.SIGTERM])


@dq.step(timeout=0.3)
def endless(kind: str, folder: str) -> None:
    flows.note(folder, "begin", kind, os.getpid(), sleeper())
    {"regex": backtracks, "signals": ignores_signals}[kind]()


@pytest.mark.parametrize("kind", ["regex", "signals"])
def test_a_time_limit_holds_whatever_a_step_does_not_hear(engine: dq.Engine, tmp_path: Path, kind: str) -> None:
    with pytest.raises(dq.StepTimeout, match=r"longer than its limit of 0\.3 s"):
        engine.submit(endless, kind, str(tmp_path)).result(30)
    pids = [int(word) for word in flows.lines(tmp_path)[0].split()[2:]]
    wait_until(lambda: not any(map(state, pids)), what="the end of its group")
    assert engine.submit(abs, -1).result(30) == 1


def detached(depth: int) -> list[int]:
    """Processes in sessions of their own, each the child of the one before; their pids."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.write(theirs, b"".join(b"%d " % pid for pid in (detached(depth - 1) if depth else [])) or b" ")
        while True:
            signal.pause()
    pids = [child, *map(int, os.read(ours, 1000).split())]
    os.close(ours)
    os.close(theirs)
    return pids


@dq.step(timeout=0.3)
def leaves_its_group(folder: str) -> None:
    flows.note(folder, "begin", "leaves", *detached(3))
    ignores_signals()


def test_nothing_of_a_killed_step_outlives_it_in_a_session_of_its_own(engine: dq.Engine, tmp_path: Path) -> None:
    with pytest.raises(dq.StepTimeout):
        engine.submit(leaves_its_group, str(tmp_path)).result(30)
    pids = [int(word) for word in flows.lines(tmp_path)[0].split()[2:]]
    assert len(pids) == 4
    wait_until(lambda: not any(map(state, pids)), what="the end of all that it had started")
    assert engine.submit(abs, -1).result(30) == 1


def descends() -> None:
    sys.setrecursionlimit(1 << 30)
    value: Any = []
    for _ in range(3_000_000):
        value = (value,)
    hash(value)  # recurses in C until the stack is used up


def kills_its_group() -> None:
    os.killpg(0, signal.SIGKILL)


def closes_everything() -> None:
    os.closerange(0, 4096)


def aborts() -> None:
    os.abort()


HARD: dict[str, tuple[Callable[[], None], str]] = {
    "deep recursion": (descends, "SIGSEGV"),
    "kill of its group": (kills_its_group, "SIGKILL"),
    "abort": (aborts, "SIGABRT"),
    "all descriptors closed": (closes_everything, "exited with code"),
}


@dq.step(max_crashes=1)
def hard(kind: str) -> None:
    HARD[kind][0]()


@pytest.mark.parametrize("kind", HARD)
def test_a_step_that_ends_its_worker_in_one_way_or_other(engine: dq.Engine, kind: str) -> None:
    others = [engine.submit(abs, -number) for number in range(50)]
    with pytest.raises(dq.StepCrashed, match=HARD[kind][1]):
        engine.submit(hard, kind).result(30)
    assert [other.result(30) for other in others] == [*range(50)]
    assert [row[:2] for row in rows(engine.path, ATTEMPTS)] == [("crashed", 1)]
    assert engine.submit(abs, -1).result(30) == 1


@dq.step
def kills(folder: str, victim: int) -> int:
    """Kills somebody of its engine, the first time."""
    flows.note(folder, "begin", "kills")
    if flows.begins(folder, "kills") == 1:
        os.kill(victim, signal.SIGKILL)
        flows.hold(folder, "kills")
    return flows.begins(folder, "kills")


@pytest.mark.parametrize("kind", ["supervisor", "template"])
def test_a_step_that_kills_its_parent(engine: dq.Engine, tmp_path: Path, kind: str) -> None:
    """With the supervisor its workers die, and the step begins again; the template is needed for new ones only."""
    assert engine.submit(abs, -1).result(30) == 1
    [victim] = [row.pid for row in engine.census().rows if row.kind == kind]
    future = engine.submit(kills, str(tmp_path), victim)
    wait_until(lambda: flows.begins(tmp_path, "kills"))
    if kind == "template":
        (tmp_path / "open-kills").touch()
    assert future.result(30) == (2 if kind == "supervisor" else 1)
    assert victim not in [row.pid for row in engine.census().rows]
    assert engine.submit(abs, -2).result(30) == 2


@dq.step
def copies() -> int:
    """Returns twice: in the worker, and in a copy of it."""
    os.fork()
    return os.getpid()


def test_a_copy_that_a_step_makes_of_its_worker_says_nothing(engine: dq.Engine) -> None:
    assert all(engine.submit(copies).result(30) for _ in range(5))
    workers = {row.pid for row in engine.census().rows if row.kind == "worker"}
    found = {engine.submit(copies).result(30) for _ in range(5)}
    assert found <= workers
    assert rows(engine.path, "SELECT count(*), count(DISTINCT step) FROM dq_result") == [(10, 10)]
    assert rows(engine.path, ATTEMPTS) == []


@dq.step
def hungry_for_files() -> int:
    """Opens files until the system says no, and goes on."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    taken: list[int] = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return len(taken)
    finally:
        for fd in taken:
            os.close(fd)


@dq.step
def out_of_files() -> NoReturn:
    """The same, and it lets none of them go."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    while True:
        os.open("/dev/null", os.O_RDONLY)


def test_a_step_that_runs_out_of_descriptors(engine: dq.Engine) -> None:
    assert engine.submit(hungry_for_files).result(30) > 100
    with pytest.raises(OSError, match="Too many open files"):
        engine.submit(out_of_files).result(30)
    assert [engine.submit(abs, -number).result(30) for number in range(5)] == [*range(5)]
    assert engine.submit(flows.one).result(30) == 1


@dq.step(memory=256 << 20)
def allocates(size: int) -> int:
    return len(bytearray(size))


def test_ten_gigabytes_under_a_limit(engine: dq.Engine) -> None:
    with pytest.raises(dq.MemoryExceeded):
        engine.submit(allocates, 10 << 30).result(30)
    assert engine.submit(allocates, 1 << 20).result(30) == 1 << 20
