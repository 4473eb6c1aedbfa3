"""`dq check` and `dq replay`, with code that loops, dies, is gone, lies elsewhere; and the debugger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dq
import dq.testing
from dq import errors
from tests.process.crews import members, rows
from tests.process.test_cli import call, start

_HEALTHY = """
import dq

@dq.step
def add(a, b):
    return a + b

@dq.workflow
def total(count):
    result = 0
    for number in range(count):
        result = add(result, number)
    return result

@dq.workflow
def looping(count):
    return count

@dq.workflow
def stubborn(count):
    return count

@dq.workflow
def dying(count):
    return count

@dq.workflow
def gone(count):
    return count

@dq.workflow(name="named")
def waiting(count):
    print("it prints")
    return dq.wait_signal("go")
"""
_SICK = (
    _HEALTHY.replace("def looping(count):", "def looping(count):\n    while True:\n        count += 1")
    .replace(
        "def stubborn(count):",
        "def stubborn(count):\n    while True:\n        try:\n            while True:\n                count += 1\n"
        "        except BaseException:\n            pass",
    )
    .replace("def dying(count):", "def dying(count):\n    import os\n    os._exit(7)")
    .replace("def gone(", "def moved(")
)
_START = """
import dq, flows

if __name__ == "__main__":
    with dq.Engine("f.db", workers=0) as engine:
        for workflow in (flows.looping, flows.stubborn, flows.dying, flows.gone, flows.waiting, flows.total):
            engine.start(workflow, 3, id=workflow.__name__)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(_HEALTHY)
    return tmp_path


def _script(place: Path, name: str, text: str) -> None:
    (place / name).write_text(text)
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    subprocess.run([sys.executable, name], cwd=place, env=environ, check=True, timeout=60)


def test_code_that_can_not_go_on_is_found(place: Path) -> None:
    _script(place, "starter.py", _START)
    (place / "flows.py").write_text(_SICK)
    code, out, errors = call(place, "check", "--db", "f.db", "--timeout", "0.2", "--json")
    assert code == 4
    told: dict[str, Any] = {one["id"]: one for one in json.loads(out)}
    assert {name: one["outcome"] for name, one in told.items()} == {
        "looping": "overdue", "stubborn": "lost", "dying": "lost", "gone": "blocked", "waiting": "waiting",
        "total": "waiting",
    }  # fmt: skip
    assert "flows.py:" in told["looping"]["reason"]
    assert "could not be interrupted" in told["stubborn"]["reason"]
    assert "exit code 7" in told["dying"]["reason"]
    assert "has no gone" in told["gone"]["reason"]
    assert told["waiting"]["workflow"] == "named"
    assert told["waiting"]["asked"] == ["dq:wait_signal, call 1"]
    assert "it prints" in errors
    assert rows(place / "f.db", "SELECT count(*) FROM dq_step") == [(0,)]
    assert members(place / "f.db") == []

    code, out, errors = call(place, "check", "flows.py:waiting", "flows:total", "--db", "f.db")
    assert (code, out.splitlines()[-1]) == (0, "2 unfinished runs would go on, 0 would not")

    (place / "flows.py").write_text("import nowhere_to_be_found\n")
    code, out, _ = call(place, "check", "flows:total", "--db", "f.db")
    assert code == 4
    assert "BREAKS  total" in out
    assert "No module named 'nowhere_to_be_found'" in out


def test_code_that_lies_elsewhere_is_checked(place: Path) -> None:
    call(place, "start", "flows.py:total", "3", "--db", "f.db", "--id", "t")
    build = place / "build"
    build.mkdir()
    (build / "flows.py").write_text(_HEALTHY.replace("def total(count)", "def total()"))
    code, out, errors = call(place, "check", "build/flows.py", "--place", f"{place}={build}", "--db", "f.db", "--json")
    assert code == 4, errors
    assert "takes 0 positional arguments" in json.loads(out)[0]["reason"]
    code, _, errors = call(place, "check", "gone.py", "--db", "f.db")
    assert code == 2
    assert "There is no file gone.py" in errors


def _debug(place: Path, commands: str, *words: str) -> str:
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-m", "dq", "replay", "t", *words, "--db", "f.db"]
    done = subprocess.run(
        command, cwd=place, env=environ, input=commands, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_is_replayed(place: Path) -> None:
    call(place, "run", "flows.py:total", "3", "--db", "f.db", "--id", "t", "--workers", "1")
    before = (place / "f.db").read_bytes()
    code, out, errors = call(place, "replay", "t", "--db", "f.db")
    assert code == 0, errors
    assert out.splitlines() == [
        "     1  add(0, 0) -> 0", "     2  add(0, 1) -> 1", "     3  add(1, 2) -> 3", "t completed: 3", "as on record",
    ]  # fmt: skip

    (place / "flows.py").write_text(_HEALTHY.replace("    return result", "    breakpoint()\n    return result"))
    out = _debug(place, "p 'count is', count\nc\np 'result is', result\nc\n", "--pdb")
    assert "flows.py(10)total()" in out
    assert "('count is', 3)" in out
    assert out.index("add(1, 2) -> 3") < out.index("(Pdb) ('result is', 3)")

    (place / "flows.py").write_text(_HEALTHY.replace("    return result", "    return -result"))
    verdict = dq.testing.replay(place / "f.db", "t")
    assert (verdict.outcome, verdict.result, verdict.same) == ("finished", -3, False)
    (place / "flows.py").write_text(_HEALTHY.replace("add(result, number)", "add(result, number + 1)"))
    code, out, _ = call(place, "replay", "t", "--db", "f.db")
    assert code == 4
    assert "args[1]: 0 -> 1" in out
    assert (place / "f.db").read_bytes() == before


@dq.step
def double(n: int) -> int:
    return 2 * n


@dq.workflow
def doubled(n: int) -> int:
    return double(n)


@dq.workflow
def redoubled(n: int) -> int:
    return double(n) * 2


def test_a_test_replays_a_run_on_record(engine: dq.Engine) -> None:
    assert engine.start(doubled, 4, id="d").result(30) == 8
    verdict = dq.testing.replay(engine.path, "d")
    assert (verdict.result, verdict.same, verdict.notes()) == (8, True, [])
    verdict = dq.testing.replay(engine.path, "d", redoubled)
    assert (verdict.result, verdict.same) == (16, False)
    with pytest.raises(errors.NoSuchRun):
        dq.testing.replay(engine.path, "nobody")


def test_a_workflow_that_holds_up_its_host_is_told_of(place: Path) -> None:
    (place / "flows.py").write_text(
        "import dq, os, time\n@dq.workflow\ndef slow():\n    while not os.path.exists('open'):\n        time.sleep(0.01)\n"
    )
    process = start(place, "run", "flows.py:slow", "--db", "f.db", "--workers", "1", "--id", "s")
    assert process.stderr is not None
    line = next(line for line in process.stderr if "has held up its host" in line)
    (place / "open").touch()
    _, errors = process.communicate(timeout=60)
    assert "the workflow of run 's'" in line
    assert f"{place}/flows.py:5" in line or f"{place}/flows.py:4" in line
    assert "has held up" not in errors
    assert process.returncode == 0
