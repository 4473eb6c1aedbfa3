"""Attempts in real processes: retries, time and memory limits, parked steps, cursors and keys, over kills of anybody."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
import tenacity
from click.testing import CliRunner

import dq
from tests.process import flows
from tests.process.crews import rows
from tests.waiting import wait_until

MIB = 1 << 20
hoard: list[bytes] = []


def note(folder: str, *words: object) -> int:
    """Notes an attempt, and returns which it is."""
    flows.note(folder, "begin", *words, time.time_ns() // 1000)
    return dq.current().attempt


def told(folder: Path) -> list[list[str]]:
    return [line.split() for line in flows.lines(folder)]


@dq.step(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(1.2))
def late(folder: str) -> str:
    if note(folder, "late") == 1:
        raise ValueError("not yet")
    return "done"


def test_a_due_time_outlives_the_supervisor(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        future = engine.submit(late, str(tmp_path))
        [(due,)] = wait_until(lambda: rows(tmp_path / "f.db", "SELECT due_at FROM dq_term"))
        assert rows(tmp_path / "f.db", "SELECT outcome, charged FROM dq_attempt") == [("failed", 0)]
        os.kill(engine.census().rows[0].pid, signal.SIGKILL)
        assert future.result(30) == "done"
        assert rows(tmp_path / "f.db", "SELECT due_at FROM dq_term") == [(due,)]
    first, second = [int(words[2]) for words in told(tmp_path)]
    assert second >= due >= first + 1_200_000
    assert rows(tmp_path / "f.db", "SELECT attempt, state FROM dq_result") == [(2, "completed")]
    assert rows(tmp_path / "f.db", "SELECT outcome, began_at IS NULL FROM dq_attempts ORDER BY attempt") == [
        ("failed", 0), ("completed", 0)
    ]  # fmt: skip


@dq.step(stop=tenacity.stop_after_attempt(3), max_crashes=2)
def mishaps(folder: str, course: str) -> int:
    """Fails, dies or ends, as the course says for each attempt."""
    attempt = note(folder, course)
    match course[attempt - 1]:
        case "f":
            raise ValueError(f"attempt {attempt}")
        case "d":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            pass
    return attempt


@dq.workflow
def adventures(folder: str) -> list[Any]:
    found: list[Any] = []
    for course in ("fdfe", "fdff", "fdd"):
        try:
            found.append(mishaps(folder, course))
        except (ValueError, dq.StepCrashed) as error:
            found.append((type(error).__name__, str(error)[:9]))
    patient = mishaps.options(stop=tenacity.stop_after_attempt(4))
    return [*found, patient(folder, "fffe"), mishaps.options(retry=_never)(folder, "e")]


def _never(_state: tenacity.RetryCallState) -> bool:
    return False


def test_deaths_do_not_count_as_failures_nor_failures_as_deaths(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        found = engine.start(adventures, str(tmp_path), id="r").result(60)
        assert found == [4, ("ValueError", "attempt 4"), ("StepCrashed", found[2][1]), 4, 1]
        once = mishaps.options(stop=tenacity.stop_after_attempt(1))
        with pytest.raises(ValueError, match="attempt 1"):
            engine.submit(once, str(tmp_path), "fe").result(30)
    attempts = rows(tmp_path / "f.db", "SELECT outcome, charged FROM dq_attempt ORDER BY step, attempt")
    failed, crashed = ("failed", 0), ("crashed", 1)
    assert attempts == [
        failed, crashed, failed,
        failed, crashed, failed,  # the last failure is its result
        failed, crashed, crashed,
        failed, failed, failed,
    ]  # fmt: skip


@dq.step(timeout=0.4)
def endless(folder: str) -> NoReturn:
    note(folder, "endless")
    sum(iter(int, 1))  # a loop in C that never lets the interpreter go
    raise AssertionError


@dq.step(timeout=0.4)
def prompt(folder: str, name: str) -> str:
    flows.note(folder, "begin", name, os.getpid())
    return name


@dq.workflow
def limited(folder: str) -> list[str]:
    found = []
    for step in (endless, endless.options(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(0.05))):
        try:
            step(folder)
        except dq.StepTimeout as error:
            found.append(str(error))
    return found


def test_a_time_limit_holds_for_a_loop_in_c(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        once, twice = engine.start(limited, str(tmp_path), id="r").result(60)
        for text in (once, twice):
            assert "endless was killed with its process: it took longer than its limit of 0.4 s" in text
            assert f'{__file__}", line' in text
            assert "in endless" in text
            assert "trial.py" not in text
        assert engine.submit(prompt, str(tmp_path), "after").result(30) == "after"
    assert rows(tmp_path / "f.db", "SELECT attempt, outcome, charged FROM dq_attempt ORDER BY ended_at") == [
        (1, "timed_out", 0), (1, "timed_out", 0), (2, "timed_out", 0)
    ]  # fmt: skip
    assert len([words for words in told(tmp_path) if words[1] == "endless"]) == 3


def test_the_time_that_a_step_waits_in_a_worker_is_not_its_own(tmp_path: Path) -> None:
    """The supervisor gives short steps ahead; here the worker can't give them back, since a loop in C keeps it."""
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        names = [f"p{n}" for n in range(40)]
        for name in names:
            assert engine.submit(prompt, str(tmp_path), name).result(30) == name
        assert engine.submit(deaf, 1).result(30) == 1
        busy = engine.submit(deaf, 30_000_000)
        futures = [engine.submit(prompt, str(tmp_path), name) for name in names]
        assert [future.result(60) for future in futures] == names
        assert busy.result(60) == 30_000_000
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_attempt") == [(0,)]


@dq.step
def deaf(count: int) -> int:
    """Counts in C, for about a second, with the interpreter's lock held."""
    return sum(map(len, itertools.repeat("x", count)))


@dq.step(memory=64 * MIB)
def greedy(size: int) -> int:
    bytearray(size)
    return os.getpid()


@dq.step(memory=64 * MIB)
def hoarding() -> NoReturn:
    while True:
        hoard.append(b"x" * MIB)


@dq.step
def pid() -> int:
    return os.getpid()


def test_a_memory_limit(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        first = engine.submit(pid).result(30)
        with pytest.raises(dq.MemoryExceeded, match="64 MiB"):
            engine.submit(greedy, 1 << 30).result(30)
        assert engine.submit(greedy, 16 * MIB).result(30) == first, "the same worker goes on"
        with pytest.raises(MemoryError):
            engine.submit(hoarding).result(30)
        assert engine.submit(pid).result(30) != first, "one that has kept what it took is replaced"
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_attempt") == [(0,)]


@dq.step(on_crash="park")
def keyed(folder: str) -> str:
    """Dies, fails, and ends; each attempt notes its key."""
    me = dq.current()
    flows.note(folder, "begin", me.idempotency_key, me.run)
    if me.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if me.attempt == 2:
        raise ValueError("once more")
    return me.idempotency_key


@dq.workflow
def parked(folder: str) -> str:
    return keyed.options(stop=tenacity.stop_after_attempt(3))(folder)


def test_a_parked_step_outlives_a_kill_and_a_move_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = tmp_path / "old" / "f.db", tmp_path / "new" / "g.db"
    with dq.Engine(old, workers=1) as engine:
        run = engine.start(parked, str(tmp_path), id="r")
        [(step,)] = wait_until(lambda: rows(old, "SELECT step FROM dq_term WHERE due_at > 250000000000000000"))
        os.kill(engine.census().rows[0].pid, signal.SIGKILL)
        engine.flush()
        assert rows(old, "SELECT state FROM dq_steps") == [("pending",)]
        with pytest.raises(TimeoutError):
            run.result(0.2)
    old.rename(new)
    assert flows.lines(tmp_path)[1:] == []
    with dq.Engine(new, workers=1) as engine:
        with pytest.raises(dq.NoSuchStep):
            engine.release(step + 1)
        assert "begins" in engine.release(step)
        key = engine.get("r").result(30)
    assert [words[1:] for words in told(tmp_path)] == [[key, "r"]] * 3


def test_a_parked_step_is_released_from_the_command_line(tmp_path: Path) -> None:
    from dq.cli.retry import command

    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        future = engine.submit(keyed.options(stop=tenacity.stop_after_attempt(3)), str(tmp_path))
        [(step,)] = wait_until(lambda: rows(tmp_path / "f.db", "SELECT step FROM dq_term WHERE due_at > 9e16"))
        done = CliRunner().invoke(command, [str(step), "--db", str(tmp_path / "f.db")])
        assert done.exit_code == 0, done.output
        assert f"step {step} begins" in done.output
        assert len(future.result(30)) == 32


@dq.step
def paged(folder: str, name: str) -> list[int]:
    """Reads ten pages; its process is killed in the fourth, right after it has said so."""
    first = dq.current().cursor or 0
    flows.note(folder, "begin", name, first)
    for page in range(first, 10):
        dq.progress(page + 1)
        if page == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return [first, dq.current().attempt]


@dq.step
def watched(folder: str, name: str) -> int:
    first = dq.current().cursor or 0
    flows.note(folder, "begin", name, first)
    dq.progress(first + 7)
    flows.hold(folder, name)
    return int(first)


def test_a_cursor_outlives_its_worker_and_the_supervisor(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1, executors={"io": "thread:2"}) as engine:
        assert engine.submit(paged, str(tmp_path), "p").result(30) == [4, 2]
        future = engine.submit(watched.options(executor="io"), str(tmp_path), "w")
        wait_until(lambda: rows(tmp_path / "f.db", "SELECT 1 FROM dq_progress"))
        os.kill(engine.census().rows[0].pid, signal.SIGKILL)
        assert future.result(30) == 7
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_progress") == [(0,)]


@dq.step
def grow(size: int) -> int:
    hoard.append(b"x" * size)
    return os.getpid()


def test_workers_are_replaced_after_enough_work(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1, recycle_steps=3, recycle_rss=150 * MIB) as engine:
        pids = [engine.submit(pid).result(30) for _ in range(7)]
        assert [pids.count(number) for number in dict.fromkeys(pids)] == [3, 3, 1]
        assert list(engine.map(pid_of, range(200))), "many at once go on too"
        bloated = engine.submit(grow, 200 * MIB).result(30)
        assert engine.submit(pid).result(30) != bloated
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_attempt") == [(0,)]
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_result WHERE state = 'completed'") == [(209,)]


@dq.step
def pid_of(_number: int) -> int:
    return os.getpid()
