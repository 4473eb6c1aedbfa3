"""Many runs at once: deep families, wide ones, and those that sleep, which hold no worker and hardly any memory."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

import dq
from tests.process import waitflows
from tests.process.crews import rows
from tests.process.memory import MIB, rss
from tests.waiting import wait_until

KIB = 1 << 10


def pid(engine: dq.Engine, kind: str) -> int:
    return next(row.pid for row in engine.census().rows if row.kind == kind)


@pytest.mark.parametrize("levels", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_children_of_children(engine: dq.Engine, levels: int) -> None:
    assert engine.start(waitflows.deep, levels).result(100) == levels


@pytest.mark.parametrize("count", [500, pytest.param(100_000, marks=pytest.mark.soak)])
def test_children_side_by_side(engine: dq.Engine, count: int) -> None:
    assert engine.start(waitflows.one, 1).result(30) == 1
    before = {kind: rss(pid(engine, kind)) for kind in ("host", "supervisor")}
    assert engine.start(waitflows.wide, count).result(30 + count / 500) == sum(range(count))
    grown = {kind: rss(pid(engine, kind)) - before[kind] for kind in before}
    assert max(grown.values()) < 16 * MIB + count * 2 * KIB, grown


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_runs_that_sleep_are_cheap(tmp_path: Path, count: int) -> None:
    db = tmp_path / "f.db"
    with dq.Engine(db, workers=2) as engine:
        assert engine.start(waitflows.one, 1).result(30) == 1
        before = {kind: rss(pid(engine, kind)) for kind in ("host", "supervisor")}
        run = engine.start(waitflows.dormitory, count)
        wait_until(lambda: rows(db, "SELECT count(*) FROM dq_term") == [(count,)], 30 + count / 100)
        grown = {kind: rss(pid(engine, kind)) - before[kind] for kind in before}
        assert grown["host"] < 4 * MIB + count * 9.6 * KIB, grown
        assert grown["supervisor"] < 4 * MIB + count * 3 * KIB, grown
        assert not [row for row in engine.census().rows if row.kind == "worker"]
        times = [psutil.Process(pid(engine, kind)).cpu_times() for kind in before]
        assert all(spent.user + spent.system < 60 for spent in times)
        assert run.cancel(now=True) == f"run {run.id} is cancelled"
    assert rows(db, "SELECT state, count(*) FROM dq_run GROUP BY state ORDER BY state") == [
        ("cancelled", count + 1), ("completed", 1)
    ]  # fmt: skip
