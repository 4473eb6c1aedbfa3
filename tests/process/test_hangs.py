"""Who is stopped, frozen or paused: killed with its group and its step begun again once; or left alone, if all were."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dq
from dq.crew.reaper import GRACE
from tests.process import flows
from tests.process.crews import rows, state
from tests.waiting import wait_until

FREEZER = Path("/sys/fs/cgroup/freezer")
ATTEMPTS = "SELECT outcome, charged, cause FROM dq_attempt ORDER BY attempt"


def sleeper() -> int:
    """A process in this one's group that does nothing until it is killed."""
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    return child


@dq.step
def stops(folder: str) -> int:
    """Stops itself, the first time, and leaves a child in its group."""
    attempt = dq.current().attempt
    flows.note(folder, "begin", "stops", os.getpid(), sleeper() if attempt == 1 else 0)
    if attempt == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return attempt


def test_a_stopped_worker_is_killed_with_its_group_and_its_step_begins_once_more(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=2, hang=0.4) as engine:
        assert engine.submit(stops, str(tmp_path)).result(30) == 2
        first, second = [line.split()[2:] for line in flows.lines(tmp_path)]
        assert first[0] != second[0]
        wait_until(lambda: not state(int(first[0])) and not state(int(first[1])), what="the group's end")
    [(outcome, charged, cause)] = rows(tmp_path / "f.db", ATTEMPTS)
    assert (outcome, charged) == ("crashed", 1)
    assert "stopped for more than 0.4 s" in cause


def test_one_that_goes_on_in_time_is_left_alone(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1, hang=60) as engine:
        future = engine.submit(flows.spin, str(tmp_path), "spin")
        wait_until(lambda: flows.begins(tmp_path, "spin"))
        worker = int(flows.lines(tmp_path)[0].split()[2])
        for _ in range(3):
            os.kill(worker, signal.SIGSTOP)
            wait_until(lambda: state(worker) == "T")
            os.kill(worker, signal.SIGCONT)
        (tmp_path / "open-spin").touch()
        assert future.result(30) == worker
    assert rows(tmp_path / "f.db", ATTEMPTS) == []


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Freezes a process as a container's runtime does, for the time of a block."""
    group = FREEZER / f"dq-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no freezer here: {error}")
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "freezer.state").write_text("FROZEN")
        wait_until(lambda: (group / "freezer.state").read_text() == "FROZEN\n")
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        wait_until(lambda: not (group / "cgroup.procs").read_text(), what="the end of who was frozen")
        group.rmdir()


def test_a_frozen_worker_is_given_up_but_its_step_begins_when_it_is_dead(tmp_path: Path) -> None:
    """The kernel kills a frozen process when it thaws. Until then the step is nobody else's."""
    with dq.Engine(tmp_path / "f.db", workers=2, hang=0.4) as engine:
        future = engine.submit(flows.spin, str(tmp_path), "spin")
        wait_until(lambda: flows.begins(tmp_path, "spin"))
        worker = int(flows.lines(tmp_path)[0].split()[2])
        with frozen(worker):
            wait_until(lambda: _is_to_die(worker), what="its kill")
            assert engine.submit(abs, -3).result(30) == 3, "others go on"
            assert (flows.begins(tmp_path, "spin"), state(worker) != "") == (1, True)
        assert future.result(30) != worker
    assert flows.begins(tmp_path, "spin") == 2
    [(outcome, _, cause)] = rows(tmp_path / "f.db", ATTEMPTS)
    assert outcome == "crashed"
    assert "no heartbeat and no progress" in cause


def _is_to_die(pid: int) -> bool:
    """Whether a SIGKILL waits for the process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (signal.SIGKILL - 1) & 1 for mask in pending)


@pytest.mark.parametrize("everybody", [False, True], ids=["supervisor", "everybody"])
def test_a_supervisor_that_was_stopped_itself_blames_nobody(tmp_path: Path, everybody: bool) -> None:
    """A machine that was suspended, a container that was paused: nobody's heart has been heard for a while."""
    with dq.Engine(tmp_path / "f.db", workers=2, hang=0.4) as engine:
        futures = [engine.submit(flows.spin, str(tmp_path), name) for name in ("one", "two")]
        wait_until(lambda: flows.begins(tmp_path, "one") and flows.begins(tmp_path, "two"))
        [supervisor] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
        workers = [int(line.split()[2]) for line in flows.lines(tmp_path)]
        stopped = [supervisor, *(workers if everybody else [])]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + GRACE + 0.5
        wait_until(lambda: time.monotonic() > until)
        for pid in stopped:  # the supervisor first: it finds the others stopped
            os.kill(pid, signal.SIGCONT)
        beat = time.monotonic() + 1.0
        wait_until(lambda: time.monotonic() > beat, what="some looks at the hearts")
        for name in ("one", "two"):
            (tmp_path / f"open-{name}").touch()
        assert sorted(future.result(30) for future in futures) == sorted(workers)
    assert rows(tmp_path / "f.db", ATTEMPTS) == []
