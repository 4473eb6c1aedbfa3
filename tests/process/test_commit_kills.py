"""The real supervisor, killed at the system calls of its commits: what a client was told is in the file.

strace attaches to a supervisor that serves a client, and kills it at the n-th call of a kind. Whatever the moment: all futures end with the right values, those that had ended before the kill were
on disk by then, and no step has two results.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

import dq
from dq.client.steps import StepFuture
from tests.process import flows
from tests.process.crews import rows
from tests.sweeps import tally
from tests.waiting import wait_until

CALLS = {"fdatasync": 24, "pwrite64": 160, "sendto": 40}  # those of the first commits, at which a sweep kills
STEPS_MAX = 4000  # submitted while the kill does not come
POINTS = [
    *[("fdatasync", n) for n in (1, 2, 4)],
    *[("pwrite64", n) for n in (1, 3, 8, 21, 55)],
    *[("sendto", n) for n in (1, 4, 16)],
]


@functools.cache
def _may_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        command = ["timeout", "-s", "INT", "1", "strace", "-o", "/dev/null", "-p", str(sleeper.pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        sleeper.kill()
        sleeper.wait()
    return "attached" in done.stderr and "not permitted" not in done.stderr


@pytest.fixture(autouse=True)
def _strace() -> None:
    if not _may_trace():
        pytest.skip("strace is missing or may not attach here")


def attach(pid: int, call: str, what: str, log: Path) -> subprocess.Popen[bytes]:
    """strace, attached: it does that to the process at that call."""
    options = ["-f", "-e", f"trace={call}", "-e", f"inject={call}:{what}", "-o", str(log)]
    with open(f"{log}.err", "wb") as errors:
        tracer = subprocess.Popen(["strace", *options, "-p", str(pid)], stderr=errors)
    wait_until(lambda: b"attached" in Path(f"{log}.err").read_bytes())
    return tracer


@pytest.mark.parametrize(("call", "when"), POINTS, ids=[f"{call}-{when}" for call, when in POINTS])
def test_what_was_told_is_in_the_file(tmp_path: Path, call: str, when: int) -> None:
    _kill_at(tmp_path, call, when)


@pytest.mark.soak
def test_what_was_told_is_in_the_file_at_every_call(tmp_path: Path) -> None:
    began = time.monotonic()
    for call, count in CALLS.items():
        for when in range(1, count + 1):
            folder = tmp_path / f"{call}-{when}"
            folder.mkdir()
            _kill_at(folder, call, when)
            shutil.rmtree(folder)
    tally("kills at system calls", sum(CALLS.values()), seeds="every call", began=began, lost=0, repeated=0)


def _kill_at(tmp_path: Path, call: str, when: int) -> None:
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        assert engine.submit(abs, -1).result(30) == 1
        first = engine.census().rows[0].pid
        tracer = attach(first, call, f"signal=KILL:when={when}", tmp_path / "trace")
        futures: list[dq.Future[int]] = []
        while tracer.poll() is None and len(futures) < STEPS_MAX:
            futures += [engine.submit(pow, len(futures) + number, 2) for number in range(4)]
            wait(futures[-4:-3], 20)
        tracer.wait(20)
        told = [future._id for future in futures if future.done() and isinstance(future, StepFuture)]
        assert told
        on_disk = {row[0] for row in rows(tmp_path / "f.db", "SELECT step FROM dq_result")}
        assert set(told) <= on_disk
        wait(futures, 60)
        assert [future.result(0) for future in futures] == [number**2 for number in range(len(futures))]
        assert engine.census().rows[0].pid != first
    assert rows(tmp_path / "f.db", "SELECT count(*), count(DISTINCT step) FROM dq_result") == [(len(futures) + 1,) * 2]
    assert rows(tmp_path / "f.db", "PRAGMA integrity_check") == [("ok",)]
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_batch") == [(0,)]
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_claim") == [(0,)]


@pytest.mark.parametrize("victim", ["worker", "host", "template", "supervisor", "group"])
def test_killed_while_a_commit_is_synced(tmp_path: Path, victim: str) -> None:
    """Each sync takes half a second, and the victim dies in the one that makes the first step's result durable."""
    (tmp_path / "open-second").touch()
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        assert engine.start(flows.single, id="warm").result(30) == 1
        crew = {row.pid: row.kind for row in engine.census().rows}
        [supervisor] = [pid for pid, kind in crew.items() if kind == "supervisor"]
        tracer = attach(supervisor, "fdatasync", "delay_enter=500000", tmp_path / "trace")
        run = engine.start(flows.three, str(tmp_path), id="r")
        wait_until(lambda: flows.ends(tmp_path, "first"))
        for pid, kind in crew.items():
            if victim in (kind, "group"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        tracer.kill()  # the kernel lets go of whom it traced
        tracer.wait(20)
        assert run.result(60) == 11
    # Killed between its last line and its result, a body may run again; nothing else may.
    again = {1} if victim in ("host", "template") else {1, 2}
    assert flows.begins(tmp_path, "first") in again
    assert [flows.begins(tmp_path, name) for name in ("second", "third")] == [1, 1]
    told = "SELECT count(*), count(DISTINCT step) FROM dq_result WHERE seq IS NOT NULL"
    assert rows(tmp_path / "f.db", told) == [(4, 4)]
