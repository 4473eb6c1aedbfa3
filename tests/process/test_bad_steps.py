"""Steps and workflows that end their process: the evidence is on record, and everybody else goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dq
from tests.process import misfits
from tests.process.crews import rows

EVIDENCE = "SELECT outcome, charged, cause FROM dq_attempt ORDER BY attempt"


def test_sys_exit_fails_the_step(engine: dq.Engine) -> None:
    with pytest.raises(dq.StepError, match="SystemExit: 3") as error:
        engine.submit(misfits.exits).result(20)
    assert "in exits" in str(error.value.__cause__), "the traceback of the step is told"
    with pytest.raises(dq.StepError, match="SystemExit: 3"):
        engine.start(misfits.exiting_step).result(20)
    with pytest.raises(dq.StepError, match="SystemExit: 4"):
        engine.start(misfits.exiting).result(20)
    assert rows(engine.path, EVIDENCE) == [], "no worker was lost"
    assert engine.submit(misfits.double, 2).result(20) == 4


@pytest.mark.parametrize(
    ("step", "cause"),
    [(misfits.exits_hard, "exited with code 7"), (misfits.crashes, "was ended by SIGSEGV")],
    ids=["os._exit", "SIGSEGV"],
)
def test_a_step_that_kills_its_worker(engine: dq.Engine, step: Any, cause: str) -> None:
    """Steps that were claimed together with it are not charged, and run once."""
    before = [engine.submit(misfits.double, number) for number in range(300)]
    future = engine.submit(step)
    after = [engine.submit(misfits.double, number) for number in range(300)]
    with pytest.raises(dq.StepCrashed, match=cause) as crash:
        future.result(30)
    assert "killed its worker 2 times and is quarantined (max_crashes=2)" in str(crash.value)
    assert [future.result(30) for future in before + after] == [2 * number for number in range(300)] * 2
    evidence = rows(engine.path, EVIDENCE)
    assert [row[:2] for row in evidence] == [("crashed", 1)] * 2
    assert all(cause in row[2] and "peak memory" in row[2] for row in evidence)
    assert rows(engine.path, "SELECT state, count(*) FROM dq_result GROUP BY state ORDER BY 1") == [
        ("completed", 600), ("dead", 1)
    ]  # fmt: skip
    assert rows(engine.path, "SELECT max(attempt) FROM dq_result WHERE state = 'completed'") == [(1,)]


def test_the_stack_of_a_crash_is_part_of_the_evidence(engine: dq.Engine) -> None:
    with pytest.raises(dq.StepCrashed, match="in crashes"):
        engine.start(misfits.crashing_step).result(30)
    assert all("in crashes" in row[2] for row in rows(engine.path, EVIDENCE))


def test_a_workflow_that_kills_its_host(engine: dq.Engine) -> None:
    """It fails with the evidence; runs that the same host had go on."""
    others = [engine.start(misfits.doubled, number, id=f"r{number}") for number in range(20)]
    with pytest.raises(dq.StepCrashed, match=r"exiting_hard killed its host 3 times.*exited with code 5"):
        engine.start(misfits.exiting_hard, id="bad").result(30)
    assert [run.result(30) for run in others] == [2 * number for number in range(20)]
    assert engine.get("bad").status == "failed"
    assert [row[:2] for row in rows(engine.path, EVIDENCE)] == [("crashed", 1)] * 3


def test_a_value_that_kills_whoever_unpickles_it(engine: dq.Engine) -> None:
    with pytest.raises(dq.StepCrashed, match="exited with code 9"):
        engine.submit(misfits.same, misfits.Bomb()).result(30)
    assert engine.submit(misfits.double, 2).result(20) == 4


def test_a_plain_function_is_no_workflow(engine: dq.Engine) -> None:
    with pytest.raises(TypeError, match=r"@dq\.workflow"):
        engine.start(len, "abc")
    with pytest.raises(TypeError, match=r"engine\.submit\(double"):
        engine.start(misfits.double, 1)
    with pytest.raises(TypeError, match=r"engine\.start\(doubled"):
        engine.submit(misfits.doubled, 1)


def test_an_executor_that_is_not_there(engine: dq.Engine) -> None:
    with pytest.raises(dq.BadExecutor, match=r"gpu.*--executor gpu="):
        engine.submit(misfits.double.options(executor="gpu"), 1).result(20)
    with pytest.raises(dq.BadExecutor, match="warp"):
        dq.Engine(Path(engine.path).with_name("g.db"), executors={"fast": "warp:9"})
