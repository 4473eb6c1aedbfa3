"""`dq chaos`: it kills for some seconds and finds nothing, and it finds what a tampered engine does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.performances import FINDINGS, chaos, told
from tests.judge.checker import judge
from tests.process.crews import rows

_FLOWS = """
import time
import dq

@dq.step
def render(frame: int) -> int:
    time.sleep(0.3)
    return frame * frame

@dq.workflow
def movie(frames: int) -> int:
    return sum(render.map(range(frames)))
"""
# What this seed draws first are two stops of workers, each for longer than a worker may be silent.
_SEED = "1369"


def test_random_programs_bear_faults_of_every_kind(tmp_path: Path) -> None:
    done = chaos(tmp_path, "--seconds", "6", "--rate", "4", "--seed", "7", "--workers", "2", "--db", "c.db", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = told(done)
    assert all(verdict["kills"].values()), verdict
    assert [verdict[kind] for kind in FINDINGS] == [0] * len(FINDINGS)
    assert (verdict["seed"], verdict["problems"]) == (7, [])
    assert verdict["steps"] > 0
    assert rows(tmp_path / "c.db", "SELECT count(*) FROM dq_run") == [(verdict["runs"],)]
    assert judge(tmp_path / "c.db", verdict["history"]) == [], "the tests' own judge agrees"


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(_FLOWS)
    return tmp_path


def test_a_users_workflow_is_run_again_and_again(flows: Path) -> None:
    done = chaos(flows, "flows.py:movie", "--args", "[3]", "--seconds", "2", "--workers", "2", "--kinds", "worker,stop")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wrong       0" in done.stdout
    history = [Path(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("history")]
    assert '"what": "drained"' in history[0].read_text()
    assert not list(flows.glob("*.db*")), "the database was a temporary one"


def test_a_tampered_engine_is_found_out(flows: Path) -> None:
    words = ["flows.py:movie", "--args", "[4]", "--seconds", "3", "--rate", "4", "--workers", "2"]
    words += ["--kinds", "stop", "--seed", _SEED, "--db", "c.db", "--json"]
    done = chaos(flows, *words, program=("tests.judge.tampered", "reschedules_the_living"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(done.stdout)["overlaps"] > 0


def test_a_workflow_that_fails_by_itself_is_told_so(flows: Path) -> None:
    done = chaos(flows, "flows.py:movie", "--args", '["three"]', "--seconds", "1", "--workers", "1", "--db", "c.db")
    assert done.returncode == 1
    assert "fails even when nobody is killed: TypeError" in done.stderr
    assert rows(flows / "c.db", "SELECT count(*) FROM dq_run") == [(1,)]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--kinds", "worker,everybody"], "everybody"),
        (["--args", "[1]"], "--args belongs to a workflow"),
        (["flows.py:movie", "--args", "1"], "'[240]'"),
        (["--seconds", "1", "--minutes", "1"], "--minutes and --seconds"),
    ],
)
def test_what_makes_no_sense_is_refused(flows: Path, words: list[str], why: str) -> None:
    done = chaos(flows, *words)
    assert done.returncode == 2
    assert why in done.stderr
    assert list(flows.iterdir()) == [flows / "flows.py"], "nothing is left"
