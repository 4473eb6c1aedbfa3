"""Runs that go on in chapters: what lies behind a checkpoint is neither read nor done again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import dq
from dq.testing import replay
from tests.process import flows, journeys
from tests.process.crews import rows
from tests.waiting import wait_until


def increases(folder: Path) -> list[int]:
    return [int(line.split()[1]) for line in flows.lines(folder) if line.startswith("increase ")]


@pytest.mark.parametrize("victim", ["host", "supervisor"])
def test_a_run_goes_on_from_its_last_chapter(engine: dq.Engine, tmp_path: Path, victim: str) -> None:
    run = engine.start(journeys.rounds, str(tmp_path), 0, 3)
    wait_until(lambda: flows.begins(tmp_path, "last"))
    os.kill(next(member.pid for member in engine.census().rows if member.kind == victim), signal.SIGKILL)
    assert run.result(60) == 41
    assert increases(tmp_path) == list(range(41)), "no step was done twice"
    scopes = rows(tmp_path / "f.db", "SELECT scope, count(*) FROM dq_steps WHERE name LIKE '%increase' GROUP BY 1")
    assert scopes == [("0", 10), ("1", 10), ("2", 10), ("3", 11)]


def test_a_chapter_has_the_same_time_on_replay(engine: dq.Engine, tmp_path: Path) -> None:
    run = engine.start(journeys.clocked, str(tmp_path), 2, [])
    wait_until(lambda: flows.begins(tmp_path, "last"))
    os.kill(next(member.pid for member in engine.census().rows if member.kind == "host"), signal.SIGKILL)
    told = run.result(60)
    assert len(told) == 7
    assert told == sorted(told)
    told_before = [line.split()[2] for line in flows.lines(tmp_path) if line.startswith("begin last")]
    assert told_before == [told[-1]] * 2
    verdict = replay(tmp_path / "f.db", run.id)
    assert (verdict.outcome, verdict.same) == ("finished", True), verdict


def test_an_async_run_has_chapters_too(engine: dq.Engine, tmp_path: Path) -> None:
    assert engine.start(journeys.async_rounds, str(tmp_path), 5, 4).result(30) == 10


@pytest.mark.parametrize(("how", "why"), [("open", "steps that are under way"), ("undo", "compensations")])
def test_a_checkpoint_that_would_forget_something_is_refused(
    engine: dq.Engine, tmp_path: Path, how: str, why: str
) -> None:
    with pytest.raises(dq.DqError, match=why):
        engine.start(journeys.unready, str(tmp_path), how).result(30)


def test_outside_of_a_run_there_is_no_checkpoint() -> None:
    with pytest.raises(dq.DqError, match="no run is running here"):
        dq.checkpoint(1)
