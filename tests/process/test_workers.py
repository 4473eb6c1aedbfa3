"""How workers come to life, by whatever method and executor, and what happens when they can't."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dq
from dq.executor.contract import Capability, Desk, Executor, Job
from tests.process import flows
from tests.process.crews import rows
from tests.waiting import wait_until


@dq.step(executor="io")
def thread_of(folder: str, name: str) -> tuple[int, int]:
    import threading

    flows.note(folder, "begin", name, os.getpid())
    flows.hold(folder, name)
    return os.getpid(), threading.get_ident()


def test_spawned_members(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=2, start_method="spawn") as engine:
        run = engine.start(flows.three, str(tmp_path), id="r")
        wait_until(lambda: flows.begins(tmp_path, "second"), 60)
        [host] = [row.pid for row in engine.census().rows if row.kind == "host"]
        os.kill(host, signal.SIGKILL)
        worker = int(next(line for line in flows.lines(tmp_path) if line.startswith("begin second")).split()[2])
        os.kill(worker, signal.SIGKILL)
        assert run.result(60) == 11
    assert [flows.begins(tmp_path, name) for name in ("first", "second", "third")] == [1, 2, 1]


def test_a_thread_pool_runs_bodies_side_by_side_in_one_bridge(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1, executors={"io": "thread:8"}) as engine:
        names = [f"t{n}" for n in range(8)]
        futures = [engine.submit(thread_of, str(tmp_path), name) for name in names]
        wait_until(lambda: all(flows.begins(tmp_path, name) for name in names))
        for name in names:
            (tmp_path / f"open-{name}").touch()
        found = [future.result(30) for future in futures]
    assert len({pid for pid, _ in found}) == 1
    assert len({thread for _, thread in found}) == 8


def test_a_dead_bridge_is_replaced_and_what_it_had_begun_runs_again(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1, executors={"io": "thread:4"}) as engine:
        names = [f"t{n}" for n in range(4)]
        futures = [engine.submit(thread_of, str(tmp_path), name) for name in names]
        wait_until(lambda: all(flows.begins(tmp_path, name) for name in names))
        bridge = int(flows.lines(tmp_path)[0].split()[2])
        os.kill(bridge, signal.SIGKILL)
        assert {future.result(30)[0] for future in futures}.isdisjoint({bridge})
    assert rows(tmp_path / "f.db", "SELECT outcome, charged FROM dq_attempt") == [("crashed", 1)] * 4


class Broken(Executor):
    """Fails as it starts, until a file is there."""

    capabilities = Capability.NONE

    def start(self, desk: Desk) -> None:
        with open(os.environ["DQ_TEST_STARTS"], "a") as file:
            file.write("start\n")
        if not os.path.exists(os.environ["DQ_TEST_STARTS"] + ".ok"):
            raise RuntimeError("no licence for this machine")
        self.desk = desk

    def submit(self, job: Job) -> None:
        if self.desk.begin(job):
            self.desk.report(job, job.run())

    def shutdown(self, drain: float | None) -> None:
        pass


@dq.step(executor="broken")
def anywhere(number: int) -> int:
    return number + 1


def test_workers_that_cannot_start_are_tried_again_with_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    monkeypatch.setenv("DQ_TEST_STARTS", str(starts))
    with dq.Engine(tmp_path / "f.db", workers=1, executors={"broken": f"{__name__}:Broken:1"}) as engine:
        future = engine.submit(anywhere, 1)
        wait_until(lambda: starts.exists() and len(starts.read_text().splitlines()) >= 5, 30)
        assert engine.submit(abs, -4).result(20) == 4, "other executors go on"
        (tmp_path / "starts.ok").touch()
        assert future.result(30) == 2
    assert len(starts.read_text().splitlines()) < 12
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_attempt") == [(0,)], "no step is charged for it"


def _stuck(folder: str) -> str:
    """A deadlock in C with the interpreter's lock held: no heart beats, and no processor is used."""
    flows.note(folder, "begin", "stuck", os.getpid())
    if flows.begins(folder, "stuck") == 1:
        libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
        libc.pthread_mutex_init(mutex, None)
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_lock(mutex)
    return "done"


def test_a_hung_worker_leaves_its_stack_and_is_killed(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1, hang=0.8) as engine:
        assert engine.submit(_stuck, str(tmp_path)).result(30) == "done"
    [(outcome, cause)] = rows(tmp_path / "f.db", "SELECT outcome, cause FROM dq_attempt")
    assert outcome == "crashed"
    assert "no heartbeat and no progress" in cause
    assert "in _stuck" in cause


def _burn(folder: str) -> int:
    """Burns CPU in C with the interpreter's lock held: no heart beats, and yet it is at work."""
    flows.note(folder, "begin", "burn", os.getpid())
    return len(str(7**400_000))


def test_a_busy_worker_without_a_heartbeat_is_left_alone(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1, hang=0.3) as engine:
        sys.set_int_max_str_digits(0)
        assert engine.submit(_burn_long, str(tmp_path)).result(60) > 0
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_attempt") == [(0,)]


def _burn_long(folder: str) -> int:
    sys.set_int_max_str_digits(0)
    return _burn(folder)


def test_bodies_run_in_worker_processes_of_their_own_session(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        pid, session = engine.submit(_identity).result(20)
        workers = {row.pid for row in engine.census().rows if row.kind == "worker"}
    assert pid in workers
    assert session == pid


def _identity() -> tuple[int, int]:
    return os.getpid(), os.getsid(0)


_THREADED = """
import sys, threading
import dq

threading.Thread(target=threading.Event().wait, daemon=True).start()


@dq.step
def work(number):
    return number + 1


@dq.workflow
def main(number):
    return work(work(number))


if __name__ == "__main__":
    with dq.Engine(sys.argv[1], workers=1) as engine:
        print(engine.start(main, 1, id="r").result(60), flush=True)
"""


def test_a_script_whose_import_starts_a_thread_is_not_forked(tmp_path: Path) -> None:
    """A fork would copy locks that other threads hold; members import for themselves instead."""
    (tmp_path / "script.py").write_text(_THREADED)
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "f.db")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout == "3\n", done.stderr
