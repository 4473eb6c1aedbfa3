"""What a supervisor finds at its start, and what it makes of it."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

import dq
from tests.process import flows
from tests.process.crews import members, rows, serving
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def test_an_innocent_step_survives_many_deaths_of_its_supervisor(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        future = engine.submit(persistent, str(tmp_path), 6)
        for count in range(1, 6):
            wait_until(functools.partial(begun, tmp_path, count))
            [supervisor] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
            os.kill(supervisor, signal.SIGKILL)
        assert future.result(30) == 6
    assert rows(tmp_path / "f.db", "SELECT outcome, charged FROM dq_attempt") == [("lost", 0)] * 5


def begun(folder: Path, count: int) -> bool:
    return flows.begins(folder, "step") == count


@dq.step
def persistent(folder: str, last: int) -> int:
    flows.note(folder, "begin", "step", os.getpid())
    if (begun := flows.begins(folder, "step")) < last:
        signal.pause()
    return begun


def test_after_a_stop_of_the_machine_a_step_is_claimed_with_a_sync(tmp_path: Path) -> None:
    with serving(tmp_path / "f.db", "--workers", "1") as process:
        submit(tmp_path)
        process.kill()
        process.wait()
    wait_until(lambda: not members(tmp_path / "f.db"))
    with closing(connect(tmp_path / "f.db")) as file:
        file.execute("UPDATE dq_engine SET boot_id = 'another boot of the machine'")
        file.commit()
    with serving(tmp_path / "f.db", "--workers", "1"):
        wait_until(lambda: rows(tmp_path / "f.db", "SELECT state, attempt FROM dq_result") == [("completed", 2)])
    assert rows(tmp_path / "f.db", "SELECT outcome, charged, cause FROM dq_attempt") == [
        ("lost", 0, "the machine stopped")
    ]


_SUBMIT = """
import sys
import dq
from tests.process import flows
engine = dq.Engine(sys.argv[1] + "/f.db")
engine.submit(flows.held, sys.argv[1], "first", 1).result(60)
"""


def submit(folder: Path) -> None:
    """One step that holds, of a client that is gone when it has begun."""
    client = subprocess.Popen([sys.executable, "-c", _SUBMIT, str(folder)], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_until(lambda: flows.begins(folder, "first"))
    client.kill()
    client.wait()


_SURVIVOR = """
import os, sys, time
from dq.crew.ownership import share_crew, started
from dq.executor.slots import SlotWriter, WORKER, open_slots
db = sys.argv[1]
share_crew(db)
slot = SlotWriter(open_slots(db + ".slots"), 7)
slot.own(1, os.getpid(), started(os.getpid()), b"n" * 16, WORKER)
print("here", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_a_survivor_of_an_earlier_boot_is_killed_first(tmp_path: Path, stopped: bool) -> None:
    dq.Engine(tmp_path / "f.db", workers=1).close()
    survivor = subprocess.Popen(
        [sys.executable, "-c", _SURVIVOR, str(tmp_path / "f.db")], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert survivor.stdout is not None
    assert survivor.stdout.readline() == b"here\n"
    if stopped:
        os.kill(survivor.pid, signal.SIGSTOP)
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        assert survivor.wait(20) == -signal.SIGKILL
        assert engine.submit(abs, -3).result(20) == 3
    survivor.stdout.close()


def test_a_stranger_with_a_pid_from_a_slot_is_left_alone(tmp_path: Path) -> None:
    dq.Engine(tmp_path / "f.db", workers=1).close()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"],
                                stdout=subprocess.PIPE)  # fmt: skip
    assert stranger.stdout is not None
    assert stranger.stdout.readline() == b"here\n"
    from dq.crew.ownership import started
    from dq.executor.slots import WORKER, SlotWriter, open_slots

    slots = open_slots(f"{tmp_path}/f.db.slots")
    SlotWriter(slots, 7).own(1, stranger.pid, started(stranger.pid), b"n" * 16, WORKER)
    slots.close()
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        assert engine.submit(abs, -3).result(20) == 3
        assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    stranger.stdout.close()


_SCRIPT = """
import os, sys
import dq
from tests.process import flows

@dq.step
def work(folder, name, value):
    flows.note(folder, "begin", name, os.getpid())
    if name.endswith("-b"):
        flows.hold(folder, name)
    flows.note(folder, "end", name, os.getpid())
    return f"{value}MARKED"

@dq.workflow
def main(folder, name):
    return work(folder, name + "-c", work(folder, name + "-b", work(folder, name + "-a", "")))

if __name__ == "__main__":
    folder, name = sys.argv[1:]
    with dq.Engine(folder + "/f.db", workers=2) as engine:
        print(engine.start(main, folder, name, id=name).result(60), flush=True)
"""


def script(folder: Path, name: str) -> subprocess.Popen[str]:
    path = folder / f"{name}.py"
    path.write_text(_SCRIPT.replace("MARKED", name))
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.Popen(
        [sys.executable, str(path), str(folder), name], env=environ, text=True, stdout=subprocess.PIPE
    )


def interrupted(folder: Path, name: str) -> None:
    """A script whose whole crew is killed in the middle of its second step, itself included."""
    process = script(folder, name)
    wait_until(lambda: flows.begins(folder, f"{name}-b"))
    for pid in [process.pid, *members(folder / "f.db")]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()
    wait_until(lambda: not members(folder / "f.db"))


def test_the_same_script_run_again_goes_on(tmp_path: Path) -> None:
    interrupted(tmp_path, "one")
    told, _ = script(tmp_path, "one").communicate(timeout=60)
    assert told == "oneoneone\n"
    assert [flows.begins(tmp_path, f"one-{step}") for step in "abc"] == [1, 2, 1]


def test_a_supervisor_alone_finishes_the_runs_of_two_scripts(tmp_path: Path) -> None:
    """Both have their functions in `__main__`, under the same names."""
    interrupted(tmp_path, "one")
    interrupted(tmp_path, "two")
    with serving(tmp_path / "f.db", "--workers", "2") as process:
        wait_until(lambda: rows(tmp_path / "f.db", "SELECT state FROM dq_run") == [("completed",)] * 2, 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        assert [engine.get(name).result(20) for name in ("one", "two")] == ["oneoneone", "twotwotwo"]
    for name in ("one", "two"):
        assert flows.begins(tmp_path, f"{name}-a") == 1
        assert flows.begins(tmp_path, f"{name}-c") == 1


def test_edited_code_gets_a_template_of_its_own(tmp_path: Path) -> None:
    """A supervisor that stays serves a script's new text, not the one that it has in memory."""
    with serving(tmp_path / "f.db", "--workers", "1"):
        (tmp_path / "open-one-b").touch()
        assert script(tmp_path, "one").communicate(timeout=60)[0] == "oneoneone\n"
        path = tmp_path / "one.py"
        path.write_text(path.read_text().replace("{value}one", "{value}1"))
        (tmp_path / "open-one-more-b").touch()
        again = subprocess.run(
            [sys.executable, str(path), str(tmp_path), "one-more"], env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
            text=True, stdout=subprocess.PIPE, timeout=60, check=True,
        )  # fmt: skip
        assert again.stdout == "111\n"


def test_futures_stay_valid_over_many_supervisors(tmp_path: Path) -> None:
    with dq.Executor(tmp_path / "f.db", max_workers=2) as pool:
        futures = [pool.submit(pow, number, 2) for number in range(3000)]
        for round in range(5):
            futures[400 * round].result(60)
            os.kill(pool._engine.census().rows[0].pid, signal.SIGKILL)
        assert [future.result(60) for future in futures] == [number**2 for number in range(3000)]
    assert rows(tmp_path / "f.db", "SELECT count(*), count(DISTINCT step) FROM dq_result") == [(3000, 3000)]
