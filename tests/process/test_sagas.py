"""What a run has done is undone, last first, whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import dq
from tests.process import flows, journeys
from tests.process.crews import rows
from tests.waiting import wait_until


def undone(folder: Path) -> list[str]:
    return [line.split()[1] for line in flows.lines(folder) if line.startswith("undo ")]


def test_a_failed_run_is_undone_last_first_and_keeps_its_own_exception(engine: dq.Engine, tmp_path: Path) -> None:
    run = engine.start(journeys.trip, str(tmp_path), ["a", "broken", "c"])
    with pytest.raises(RuntimeError, match="no room") as failed:
        run.result(30)
    assert undone(tmp_path) == ["c", "broken", "a"], "one that fails does not keep the others from running"
    assert failed.value.__notes__ == ["compensation undo failed: ValueError: it can't be undone"]
    assert run.status == "failed"


def test_a_run_that_returns_undoes_nothing(engine: dq.Engine, tmp_path: Path) -> None:
    assert engine.start(journeys.trip, str(tmp_path), ["a"], "return").result(30) == "arrived"
    assert undone(tmp_path) == []


def test_a_cancelled_run_is_undone(engine: dq.Engine, tmp_path: Path) -> None:
    run = engine.start(journeys.trip, str(tmp_path), ["a", "b"], "wait")
    wait_until(lambda: run.progress() == (2, 3))
    run.cancel()
    with pytest.raises(dq.Cancelled):
        run.result(30)
    assert undone(tmp_path) == ["b", "a"]
    assert run.status == "cancelled"


def test_an_async_run_is_undone(engine: dq.Engine, tmp_path: Path) -> None:
    run = engine.start(journeys.async_trip, str(tmp_path))
    wait_until(lambda: flows.begins(tmp_path, "waiting"))
    run.cancel()
    with pytest.raises(dq.Cancelled):
        run.result(30)
    assert undone(tmp_path) == ["a"]


@pytest.mark.parametrize("victim", ["host", "worker", "supervisor"])
def test_a_kill_in_the_middle_of_undoing_repeats_nothing_that_is_undone(
    engine: dq.Engine, tmp_path: Path, victim: str
) -> None:
    run = engine.start(journeys.trip, str(tmp_path), ["a", "held", "c"])
    wait_until(lambda: flows.begins(tmp_path, "undo-held"))
    pid = next(member.pid for member in engine.census().rows if member.kind == victim)
    if victim == "worker":
        line = next(line for line in flows.lines(tmp_path) if line.startswith("begin undo-held"))
        pid = int(line.split()[2])
    os.kill(pid, signal.SIGKILL)
    (tmp_path / "open-undo-held").touch()
    with pytest.raises(RuntimeError, match="no room"):
        run.result(60)
    names = undone(tmp_path)
    assert [name for index, name in enumerate(names) if name not in names[:index]] == ["c", "held", "a"]
    assert (names.count("c"), names.count("a")) == (1, 1)


def test_a_second_cancel_ends_the_undoing(engine: dq.Engine, tmp_path: Path) -> None:
    run = engine.start(journeys.trip, str(tmp_path), ["a", "held"], "wait")
    wait_until(lambda: run.progress() == (2, 3))
    run.cancel()
    wait_until(lambda: flows.begins(tmp_path, "undo-held"))
    run.cancel()
    with pytest.raises(dq.Cancelled):
        run.result(30)
    assert undone(tmp_path) == ["held"]
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_claim") == [(0,)]
