"""`@dq.schedule`: what it says, and what it refuses to say."""

from __future__ import annotations

import pickle
from datetime import timedelta
from pathlib import Path

import click
import pytest

import dq
from dq.cli import targets
from dq.flow.schedules import Mark, Plan


@dq.schedule(every=90, id="often", args=(2,))
@dq.schedule("30  2 * * MON-fri", tz="Europe/Berlin", catch_up="all")
@dq.workflow
def report(count: int = 1) -> int:
    return count


def test_marks_are_kept_in_the_order_in_which_they_are_read_from_below() -> None:
    assert report.schedules == (
        Mark("report", Plan("30 2 * * MON-fri", "Europe/Berlin", "all", "allow"), ()),
        Mark("often", Plan("every 90 s", "UTC", "skip", "skip"), (2,)),
    )


def test_a_marked_workflow_is_what_it_was() -> None:
    assert report(7) == 7
    assert pickle.loads(pickle.dumps(report)) is report
    assert isinstance(report, dq.Workflow)
    assert report.options(timeout=5).schedules == report.schedules


def test_the_name_on_record_is_the_id() -> None:
    @dq.schedule("0 0 * * *")
    @dq.workflow(name="billing")
    def anything() -> None: ...

    assert [mark.id for mark in anything.schedules] == ["billing"]


def test_neither_and_both() -> None:
    with pytest.raises(dq.BadSchedule, match="neither a cron expression nor every="):
        dq.schedule()
    with pytest.raises(dq.BadSchedule, match="both a cron expression and every="):
        dq.schedule("* * * * *", every=5)
    with pytest.raises(dq.BadSchedule, match="real time, which has no time zone"):
        dq.schedule(every=5, tz="UTC")
    with pytest.raises(dq.BadSchedule, match="between a second and a year"):
        dq.schedule(every=timedelta(milliseconds=100))
    with pytest.raises(dq.BadSchedule, match="the cron expression is 5"):
        dq.schedule(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="args is 5"):
        dq.schedule("* * * * *", args=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_two_of_one_id() -> None:
    once = dq.workflow(lambda: None)
    dq.schedule("* * * * *", id="once")(once)
    with pytest.raises(dq.BadSchedule, match="have the id 'once'; give one of them its own"):
        dq.schedule("0 * * * *", id="once")(once)


def test_it_stands_above_the_workflow() -> None:
    with pytest.raises(TypeError, match=r"put it above @dq\.workflow"):
        dq.schedule("* * * * *")(len)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


def test_what_up_finds_in_a_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(targets, "_load_module", lambda _name: __import__(__name__, fromlist=["report"]))
    assert targets.load_scheduled("here") == [report]
    with pytest.raises(click.UsageError, match="names one thing"):
        targets.load_scheduled("flows.py:report")
    monkeypatch.setattr(targets, "_load_module", lambda _name: pickle)
    with pytest.raises(click.UsageError, match="Nothing in pickle has a schedule"):
        targets.load_scheduled("pickle")
