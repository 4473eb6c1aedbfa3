"""Which process is killed, and when: the run goes on from its last completed step, and ends as if nothing had been."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from pathlib import Path

import pytest

import dq
from tests.process import flows
from tests.waiting import wait_until

VICTIMS = ["worker", "host", "template", "supervisor", "group"]


def pids(engine: dq.Engine, *kinds: str) -> list[int]:
    return [row.pid for row in engine.census().rows if row.kind in kinds]


def ready(engine: dq.Engine) -> None:
    """A run has been through: every kind of process is there."""
    assert engine.start(flows.between, engine_folder(engine, "warm"), id="warm").result(30) == 2
    wait_until(lambda: pids(engine, "worker") and pids(engine, "host"))


def engine_folder(engine: dq.Engine, name: str) -> str:
    folder = Path(engine.path).parent / name
    folder.mkdir(exist_ok=True)
    (folder / "open-workflow").touch()
    return str(folder)


def kill(engine: dq.Engine, victim: str) -> None:
    """A real SIGKILL. `group`: everybody, the supervisor last to be able to see it first."""
    kinds = ["worker", "host", "template", "supervisor"] if victim == "group" else [victim]
    for pid in pids(engine, *kinds):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def holder(folder: Path, name: str) -> int:
    """The process whose body holds."""
    return int(next(line for line in flows.lines(folder) if line.startswith(f"begin {name} ")).split()[2])


def completed(db: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as connection:
        return connection.execute(
            "SELECT name, count(*) FROM dq_steps WHERE state = 'completed' GROUP BY name"
        ).fetchall()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_before_a_step(folder: Path, victim: str) -> None:
    with dq.Engine(folder / "f.db", workers=2) as engine:
        ready(engine)
        kill(engine, victim)
        (folder / "open-second").touch()
        assert engine.start(flows.three, str(folder), id="r").result(30) == 11
    assert [flows.begins(folder, name) for name in ("first", "second", "third")] == [1, 1, 1]


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_during_a_step(folder: Path, victim: str) -> None:
    with dq.Engine(folder / "f.db", workers=2) as engine:
        ready(engine)
        run = engine.start(flows.three, str(folder), id="r")
        wait_until(lambda: flows.begins(folder, "second"))
        body = holder(folder, "second")
        if victim == "worker":
            os.kill(body, signal.SIGKILL)
        else:
            kill(engine, victim)
        if victim in ("host", "template"):
            (folder / "open-second").touch()  # the body is not touched, and goes on
        assert run.result(30) == 11
        assert engine.get("r").status == "completed"
    again = 1 if victim in ("host", "template") else 2
    assert [flows.begins(folder, name) for name in ("first", "second", "third")] == [1, again, 1]


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_between_two_steps(folder: Path, victim: str) -> None:
    with dq.Engine(folder / "f.db", workers=2) as engine:
        ready(engine)
        run = engine.start(flows.between, str(folder), id="r")
        wait_until(lambda: flows.begins(folder, "workflow"))
        kill(engine, victim)
        if victim in ("worker", "template"):
            (folder / "open-workflow").touch()
        assert run.result(30) == 2
    again = 1 if victim in ("worker", "template") else 2
    assert flows.begins(folder, "workflow") == again
    assert [flows.begins(folder, name) for name in ("first", "second")] == [1, 1]


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_after_the_last_step(folder: Path, victim: str) -> None:
    with dq.Engine(folder / "f.db", workers=2) as engine:
        ready(engine)
        (folder / "open-second").touch()
        run = engine.start(flows.three, str(folder), id="r")
        assert run.result(30) == 11
        kill(engine, victim)
        assert engine.get("r").result(30) == 11
        assert engine.start(flows.three, str(folder), id="r").result(30) == 11
        assert engine.start(flows.between, engine_folder(engine, "later"), id="later").result(30) == 2
    assert [flows.begins(folder, name) for name in ("first", "second", "third")] == [1, 1, 1]


def test_the_whole_group_is_killed_and_the_next_engine_goes_on(folder: Path) -> None:
    """The client dies too: nobody is left. The same program, run again, finishes the run."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        try:
            engine = dq.Engine(folder / "f.db", workers=2)
            engine.__enter__()
            engine.start(flows.three, str(folder), id="r").result(60)
        finally:
            os._exit(1)
    wait_until(lambda: flows.begins(folder, "second"))
    everybody = [pid, *members(folder)]
    for victim in everybody:
        with contextlib.suppress(ProcessLookupError):  # the kernel kills members with their supervisor
            os.kill(victim, signal.SIGKILL)
    os.waitpid(pid, 0)
    row = intent(folder / "f.db", "held")
    assert row[0] == "claimed"
    assert row[1] == 1
    assert row[2] == holder(folder, "second")
    with dq.Engine(folder / "f.db", workers=2) as engine:
        assert engine.start(flows.three, str(folder), id="r").result(30) == 11
    assert [flows.begins(folder, name) for name in ("first", "second", "third")] == [1, 2, 1]


def intent(db: Path, name: str) -> tuple[str, int, int, int]:
    """State, attempt, worker and epoch of a step that was begun, read by the standard library."""
    with sqlite3.connect(db) as connection:
        found = connection.execute(
            "SELECT state, attempt, pid, epoch FROM dq_steps WHERE name LIKE ?", (f"%{name}",)
        ).fetchone()
    assert found is not None
    return tuple(found)


def members(folder: Path) -> list[int]:
    """Every process that has the crew or lock file of the folder's database open."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                links = [os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")]
            except OSError:
                continue
            if any(link in (f"{folder}/f.db.crew", f"{folder}/f.db.lock") for link in links):
                found.append(int(name))
    return found


def test_no_worker_outlives_its_supervisor(folder: Path) -> None:
    with dq.Engine(folder / "f.db", workers=3) as engine:
        ready(engine)
        run = engine.start(flows.wide, str(folder), 3, id="r")
        wait_until(lambda: all(flows.begins(folder, f"w{n}") for n in range(3)))
        orphans = pids(engine, "worker", "host", "template")
        assert len(orphans) >= 5
        kill(engine, "supervisor")
        wait_until(lambda: not any(map(alive, orphans)), 1.0)
        for n in range(3):
            (folder / f"open-w{n}").touch()
        assert run.result(30) == [0, 10, 20]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_one_dead_worker_harms_its_own_step_only(folder: Path) -> None:
    with dq.Engine(folder / "f.db", workers=2) as engine:
        run = engine.start(flows.wide, str(folder), 2, id="r")
        wait_until(lambda: flows.begins(folder, "w0") and flows.begins(folder, "w1"))
        os.kill(holder(folder, "w0"), signal.SIGKILL)
        wait_until(lambda: flows.begins(folder, "w0") == 2)
        (folder / "open-w1").touch()
        assert run.result(30) == [0, 10]
    assert flows.begins(folder, "w1") == 1


def test_a_stopped_worker_is_killed_and_its_step_runs_again(folder: Path) -> None:
    with dq.Engine(folder / "f.db", workers=2, hang=1.0) as engine:
        run = engine.start(flows.three, str(folder), id="r")
        wait_until(lambda: flows.begins(folder, "second"))
        body = holder(folder, "second")
        os.kill(body, signal.SIGSTOP)
        assert run.result(30) == 11
        assert not alive(body)
    assert flows.begins(folder, "second") == 2


def test_a_stopped_supervisor_does_not_reap_its_workers_when_it_goes_on(folder: Path) -> None:
    with dq.Engine(folder / "f.db", workers=1, hang=1.0) as engine:
        run = engine.start(flows.three, str(folder), id="r")
        wait_until(lambda: flows.begins(folder, "second"))
        [supervisor] = pids(engine, "supervisor")
        [worker] = pids(engine, "worker")
        for pid in (supervisor, worker):
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: state(supervisor) == "T" and state(worker) == "T")
        stopped = clock_ticks(worker)
        wait_until(lambda: elapsed_since(stopped) > 5.0, 10)
        for pid in (worker, supervisor):
            os.kill(pid, signal.SIGCONT)
        (folder / "open-second").touch()
        assert run.result(30) == 11
    assert flows.begins(folder, "second") == 1


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def clock_ticks(_pid: int) -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def elapsed_since(before: float) -> float:
    return float(Path("/proc/uptime").read_text().split()[0]) - before


def test_a_step_that_kills_its_worker_is_quarantined_with_the_evidence(folder: Path) -> None:
    with dq.Engine(folder / "f.db", workers=2) as engine:
        told = engine.start(flows.poisoned, str(folder), id="r").result(30)
    assert "killed its worker 3 times" in told
    assert "SIGKILL" in told
    assert flows.begins(folder, "deadly") == 3
    with sqlite3.connect(folder / "f.db") as connection:
        rows = connection.execute("SELECT attempt, outcome, charged FROM dq_attempt ORDER BY attempt").fetchall()
        assert rows == [(1, "crashed", 1), (2, "crashed", 1), (3, "crashed", 1)]
        assert connection.execute("SELECT state FROM dq_result WHERE state = 'dead'").fetchall() == [("dead",)]
