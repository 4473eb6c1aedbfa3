"""The first signal drains, the second hands back at once; nobody is left behind either way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process import flows
from tests.process.crews import members, rows, said, serving
from tests.waiting import wait_until

_SUBMIT = """
import sys
import dq
from tests.process import flows
engine = dq.Engine(sys.argv[1] + "/f.db")
futures = [engine.submit(flows.held, sys.argv[1], name, 1) for name in sys.argv[2:]]
futures[-1].result(60)
"""


def submit(folder: Path, *names: str) -> None:
    """Steps that hold, of a client that is gone when they are on disk and the first one has begun."""
    command = [sys.executable, "-c", _SUBMIT, str(folder), *names]
    client = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    wait_until(lambda: flows.begins(folder, names[0]))
    wait_until(lambda: rows(folder / "f.db", "SELECT count(*) FROM dq_steps") == [(len(names),)])
    client.kill()
    client.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_running_steps_finish(tmp_path: Path, number: int) -> None:
    with serving(tmp_path / "f.db", "--workers", "1", "--grace", "60") as process:
        submit(tmp_path, "first", "second")
        process.send_signal(number)
        wait_until(lambda: said(tmp_path / "f.db", "may finish their steps"))
        (tmp_path / "open-second").touch()
        (tmp_path / "open-first").touch()
        assert process.wait(20) == 0
    assert flows.ends(tmp_path, "first") == 1
    assert flows.begins(tmp_path, "second") == 0, "nothing is claimed while it drains"
    assert members(tmp_path / "f.db") == []
    states = rows(tmp_path / "f.db", "SELECT state FROM dq_steps ORDER BY id")
    assert states == [("completed",), ("pending",)]


def test_the_second_signal_hands_back_at_once(tmp_path: Path) -> None:
    with serving(tmp_path / "f.db", "--workers", "1", "--grace", "60") as process:
        submit(tmp_path, "first")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: said(tmp_path / "f.db", "A second signal hands the steps back"))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 4
    assert members(tmp_path / "f.db") == []
    assert rows(tmp_path / "f.db", "SELECT outcome, charged FROM dq_attempt") == [("lost", 0)]
    assert rows(tmp_path / "f.db", "SELECT clean FROM dq_engine") == [(1,)]
    with serving(tmp_path / "f.db", "--workers", "1") as process:
        wait_until(lambda: rows(tmp_path / "f.db", "SELECT state, attempt FROM dq_result") == [("completed", 2)])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert flows.begins(tmp_path, "first") == 2


def test_the_grace_has_an_end(tmp_path: Path) -> None:
    with serving(tmp_path / "f.db", "--workers", "1", "--grace", "0.3") as process:
        submit(tmp_path, "first")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 4
    assert members(tmp_path / "f.db") == []


_SCRIPT = """
import sys
import dq
from tests.process import flows

if __name__ == "__main__":
    folder = sys.argv[1]
    with dq.Engine(folder + "/f.db", workers=2, grace=60) as engine:
        print(engine.submit(flows.held, folder, "first", 7).result(60), flush=True)
"""
CREW = 4  # supervisor, template, the worker that is at the step, and an idle one


def script(folder: Path) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(_SCRIPT)
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.Popen(
        [sys.executable, str(folder / "script.py"), str(folder)], env=environ, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_ctrl_c_in_a_script_drains(tmp_path: Path) -> None:
    process = script(tmp_path)
    wait_until(lambda: flows.begins(tmp_path, "first"))
    os.killpg(process.pid, signal.SIGINT)
    (tmp_path / "open-first").touch()
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert flows.ends(tmp_path, "first") == 1
    assert members(tmp_path / "f.db") == []
    assert rows(tmp_path / "f.db", "SELECT state FROM dq_result") == [("completed",)]


def test_ctrl_c_twice_hands_back_at_once(tmp_path: Path) -> None:
    process = script(tmp_path)
    wait_until(lambda: flows.begins(tmp_path, "first") and len(members(tmp_path / "f.db")) == CREW)
    os.killpg(process.pid, signal.SIGINT)
    wait_until(lambda: len(members(tmp_path / "f.db")) < CREW, what="the idle worker leaves, so the supervisor drains")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert flows.ends(tmp_path, "first") == 0
    assert members(tmp_path / "f.db") == []
    assert rows(tmp_path / "f.db", "SELECT outcome, charged FROM dq_attempt") == [("lost", 0)]
