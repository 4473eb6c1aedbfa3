"""The commands, as a person or a script calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process import flows
from tests.process.crews import members, rows
from tests.waiting import wait_until

_FLOWS = '''
import dq
from tests.process import flows

@dq.step
def add(a: int, b: int) -> int:
    return a + b

@dq.workflow
def total(count: int) -> int:
    """Adds up, step by step."""
    result = 0
    for number in range(count):
        result = add(result, number)
    return result

@dq.step
def refuse(word: str) -> None:
    raise ValueError(f"no {word}")

@dq.workflow
def failing(word: str) -> None:
    refuse(word)

@dq.workflow
def holding(folder: str) -> int:
    return flows.three(folder) if False else flows.held(folder, "second", flows.plain(folder, "first", 1))
'''


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(_FLOWS)
    return tmp_path


def start(place: Path, *words: str) -> subprocess.Popen[str]:
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), NO_COLOR="1")
    return subprocess.Popen(
        [sys.executable, "-m", "dq", *words], cwd=place, env=environ, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def call(place: Path, *words: str) -> tuple[int, str, str]:
    process = start(place, *words)
    out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


def loads(place: Path, *words: str) -> Any:
    code, out, errors = call(place, *words, "--json")
    assert code == 0, errors
    return json.loads(out)


def test_run_prints_the_result_and_the_same_id_is_the_same_run(place: Path) -> None:
    code, out, _ = call(place, "run", "flows.py:total", "5", "--db", "f.db", "--id", "t")
    assert (code, out) == (0, "10\n")
    again = loads(place, "run", "flows.py:total", "5", "--db", "f.db", "--id", "t")
    assert again == {"id": "t", "ok": True, "result": 10, "error": None}
    assert rows(place / "f.db", "SELECT count(*) FROM dq_step") == [(5,)]
    code, _, errors = call(place, "run", "flows.py:total", "6", "--db", "f.db", "--id", "t")
    assert code == 2
    assert "total(5)" in errors
    assert "total(6)" in errors


def test_a_failure_shows_the_users_traceback(place: Path) -> None:
    code, out, errors = call(place, "run", "flows.py:failing", '"way"', "--db", "f.db")
    assert code == 1
    assert out == ""
    assert "ValueError: no way" in errors
    assert "in refuse" in errors


def test_start_waits_for_up(place: Path) -> None:
    assert loads(place, "start", "flows.py:total", "4", "--db", "f.db", "--id", "later")["id"] == "later"
    assert members(place / "f.db") == []
    assert rows(place / "f.db", "SELECT count(*) FROM dq_step") == [(0,)]
    code, _, errors = call(place, "up", "--db", "f.db", "--workers", "1", "--until-idle")
    assert code == 0, errors
    [run] = loads(place, "ls", "--db", "f.db")
    assert (run["id"], run["state"], run["done"]) == ("later", "completed", 4)


def test_up_restarts_its_supervisor_and_drains_on_a_signal(place: Path) -> None:
    call(place, "start", "flows.py:holding", json.dumps(str(place)), "--db", "f.db", "--id", "h")
    process = start(place, "up", "--db", "f.db", "--workers", "1")
    wait_until(lambda: flows.begins(place, "second"))
    supervisor = int((place / "f.db.lock").read_text())
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: flows.begins(place, "second") == 2)
    wait_until(lambda: rows(place / "f.db", "SELECT state FROM dq_run") == [("completed",)])
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "killed by SIGKILL" in errors
    assert members(place / "f.db") == []
    assert flows.begins(place, "first") == 1


def test_show(place: Path) -> None:
    call(place, "run", "flows.py:total", "3", "--db", "f.db", "--id", "t")
    shown = loads(place, "show", "t", "--db", "f.db")
    assert [step["state"] for step in shown["step_list"]] == ["completed"] * 3
    code, out, _ = call(place, "show", "t", "--db", "f.db")
    assert code == 0
    assert "3 of 3" in out


def test_executors(place: Path) -> None:
    found = {row["name"]: row for row in loads(place, "executors")}
    assert "kill" in found["process"]["capabilities"]
    assert found["thread"]["error"] == ""


def test_the_database_may_come_from_the_environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQ_DB", "env.db")
    call(place, "run", "flows.py:total", "3", "--id", "t")
    assert [run["id"] for run in loads(place, "ls")] == ["t"]
    assert (place / "env.db").exists()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("run", "flows.py:nothing", "--db", "f.db"), 2, "Its workflows: total"),
        (("run", "flows.py:add", "1", "2", "--db", "f.db"), 2, "not a workflow"),
        (("run", "gone.py:total", "--db", "f.db"), 2, "no file gone.py"),
        (("run", "no.such.module:total", "--db", "f.db"), 2, "no module no.such.module"),
        (("run", "flows.py:total", "{5", "--db", "f.db"), 2, "not JSON"),
        (("run", "flows.py:total", "5", "--db", "nowhere/f.db"), 3, "mkdir -p"),
        (("run", "flows.py:total", "5", "--db", "flows.py"), 3, "not an SQLite database"),
        (("run", "flows.py:total", "5", "--id", "", "--db", "f.db"), 2, "may not be empty"),
        (("ls", "--db", "f.db"), 3, "no database"),
        (("show", "t", "--db", "f.db"), 3, "no database"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_bad_input(place: Path, words: tuple[str, ...], code: int, text: str) -> None:
    returned, out, errors = call(place, *words)
    assert returned == code, errors
    assert out == ""
    assert text in errors
    assert "Traceback" not in errors
