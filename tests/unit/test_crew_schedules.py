"""Schedules in the supervisor: what fires when, and what becomes of times that it was not there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dq.crew import schedules
from dq.errors import Fenced
from dq.executor.frames import Book, ListPlans, Plans, Refused, Replan, Trigger
from tests.unit.timekeeping import Clock, names, office

DAY = "2026-11-24"
NOON = f"{DAY} 12:00:00"


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


def test_a_time_fires_once_and_the_next_one_follows(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        told = desk.book("*/5 * * * *")
        assert isinstance(told, Plans)
        assert [(plan.id, plan.workflow, plan.paused, plan.last_run) for plan in told.rows] == [
            ("s", "m:flow", False, "")
        ]
        assert desk.at(f"{DAY} 12:04:59") == []
        assert desk.at(f"{DAY} 12:05:00") == desk.fire() == names(DAY, "12:05:00")
        assert desk.at(f"{DAY} 12:10:01") == names(DAY, "12:05:00", "12:10:00")
        assert desk.column("last_run") == "s@2026-11-24T12:10:00Z"
        assert desk.room.rows("SELECT state, args, scheduled_at % 3600000000 FROM dq_run") == [
            ("running", b"pargs", 300_000_000), ("running", b"pargs", 600_000_000),
        ]  # fmt: skip


def test_the_same_booking_again_changes_nothing(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        first = desk.book("*/5 * * * *")
        clock.set(f"{DAY} 12:03:00")
        assert desk.book("*/5 * * * *") == first
    clock.set(f"{DAY} 12:04:00")
    with office(tmp_path, clock) as desk:
        assert desk.book("*/5 * * * *") == first


def test_another_expression_counts_from_now_and_keeps_the_past(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("*/5 * * * *")
        desk.at(f"{DAY} 12:05:00")
        desk.book("30 * * * *", args=b"pmore")
        assert desk.at(f"{DAY} 12:10:00") == names(DAY, "12:05:00")
        assert desk.column("last_run") == "s@2026-11-24T12:05:00Z"
        assert desk.at(f"{DAY} 12:30:00") == names(DAY, "12:05:00", "12:30:00")
        assert desk.room.rows("SELECT args FROM dq_run ORDER BY id") == [(b"pargs",), (b"pmore",)]
        clock.set(NOON)
        desk.book("*/5 * * * *")
        assert desk.at(f"{DAY} 12:30:00") == names(DAY, "12:05:00", "12:30:00")


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("skip", []), ("one", ["15:00:00"]), ("all", ["13:00:00", "14:00:00", "15:00:00"])],
)
def test_times_that_nobody_was_there_for(tmp_path: Path, clock: Clock, catch_up: str, expected: list[str]) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("0 * * * *", catch_up=catch_up)
    clock.set(f"{DAY} 15:30:00")
    with office(tmp_path, clock) as desk:
        assert desk.fire() == names(DAY, *expected)
    with office(tmp_path, clock) as desk:
        assert desk.fire() == names(DAY, *expected)
        assert desk.at(f"{DAY} 16:00:00") == names(DAY, *expected, "16:00:00")


def test_a_time_that_fell_into_a_restart_is_not_missed(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("0 * * * *", catch_up="skip")
    clock.set(f"{DAY} 13:00:09")
    with office(tmp_path, clock) as desk:
        assert desk.fire() == names(DAY, "13:00:00")


def test_no_more_than_so_many_are_caught_up_with(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "MISSED_MAX", 3)
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *", catch_up="all")
        assert desk.at(f"{DAY} 12:05:00") == names(DAY, "12:03:00", "12:04:00", "12:05:00")
        assert "missed more than 3 times" in desk.notices[0]
        assert desk.at(f"{DAY} 12:08:00")[3:] == names(DAY, "12:06:00", "12:07:00", "12:08:00")
        assert len(desk.notices) == 1


def test_a_time_is_skipped_while_the_last_run_is_unfinished(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *", overlap="skip")
        for minute in (1, 2, 3):
            assert desk.at(f"{DAY} 12:0{minute}:00") == names(DAY, "12:01:00")
        assert desk.column("skipped") == 2
        assert len(desk.notices) == 1
        assert "12:02:00Z is skipped" in desk.notices[0]
    with office(tmp_path, clock) as desk:
        assert desk.at(f"{DAY} 12:04:00") == names(DAY, "12:01:00")
        desk.ends("s@2026-11-24T12:01:00Z")
        assert desk.runs() == names(DAY, "12:01:00")
        assert desk.at(f"{DAY} 12:05:00") == names(DAY, "12:01:00", "12:05:00")


def test_a_time_is_allowed_while_the_last_run_is_unfinished(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *", overlap="allow")
        desk.at(f"{DAY} 12:01:00")
        assert desk.at(f"{DAY} 12:02:00") == names(DAY, "12:01:00", "12:02:00")


def test_one_time_waits_for_the_end_of_the_last_run(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *", overlap="queue")
        for minute in (1, 2, 3):
            assert desk.at(f"{DAY} 12:0{minute}:00") == names(DAY, "12:01:00")
        assert desk.column("skipped") == 1
    with office(tmp_path, clock) as desk:
        desk.ends("s@2026-11-24T12:01:00Z")
        assert desk.runs() == names(DAY, "12:01:00", "12:02:00")
        assert desk.column("waiting_at") is None
        desk.ends("s@2026-11-24T12:02:00Z")
        assert desk.runs() == names(DAY, "12:01:00", "12:02:00")
        assert desk.at(f"{DAY} 12:04:00") == names(DAY, "12:01:00", "12:02:00", "12:04:00")


def test_what_waits_is_started_by_the_next_supervisor_that_works(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *", overlap="queue")
        desk.at(f"{DAY} 12:01:00")
        desk.at(f"{DAY} 12:02:00")
    with office(tmp_path, clock, workers=0) as desk:
        desk.ends("s@2026-11-24T12:01:00Z")
        assert desk.runs() == names(DAY, "12:01:00")
    with office(tmp_path, clock) as desk:
        assert desk.fire() == names(DAY, "12:01:00", "12:02:00")


@pytest.mark.parametrize("committed", [False, True])
def test_killed_as_it_fires(tmp_path: Path, clock: Clock, committed: bool) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *", catch_up="all")
        clock.set(f"{DAY} 12:01:00")
        desk.supervisor.alarms.run(clock.now())
        assert desk.supervisor.committer.group.runs
        if committed:
            desk.supervisor.committer.commit()
    with office(tmp_path, clock) as desk:
        assert desk.fire() == names(DAY, "12:01:00")


def test_of_two_supervisors_one_fires(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as late:
        late.book("* * * * *", catch_up="all")
        with office(tmp_path, clock) as desk:
            assert desk.at(f"{DAY} 12:01:00") == names(DAY, "12:01:00")
            late.supervisor.alarms.run(clock.now())
            with pytest.raises(Fenced):
                late.supervisor.committer.commit()
            assert desk.runs() == names(DAY, "12:01:00")


def test_a_run_of_that_name_that_is_there_is_the_run(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        function = desk.workflow()
        desk.book("* * * * *")
        first, _ = desk.supervisor.ledger.lease()
        desk.supervisor.ledger.start(first, "s@2026-11-24T12:01:00Z", function, b"pmine", b"f" * 16)
        assert desk.at(f"{DAY} 12:01:00") == names(DAY, "12:01:00")
        assert sorted(desk.at(f"{DAY} 12:02:00")) == names(DAY, "12:01:00", "12:02:00")


def test_nothing_fires_in_a_pause_nor_for_it(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *", catch_up="all")
        desk.replan("pause")
        desk.replan("pause")
        assert desk.at(f"{DAY} 12:02:00") == []
        desk.book("*/2 * * * *", catch_up="all")
        assert desk.column("paused") == 1
    with office(tmp_path, clock) as desk:
        assert desk.at(f"{DAY} 12:03:30") == []
        desk.replan("resume")
        assert desk.fire() == []
        assert desk.at(f"{DAY} 12:04:00") == names(DAY, "12:04:00")


def test_a_clock_that_is_set_back_fires_nothing_twice(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *", catch_up="all")
        assert desk.at(f"{DAY} 12:02:00") == names(DAY, "12:01:00", "12:02:00")
        assert desk.at(f"{DAY} 11:00:00") == names(DAY, "12:01:00", "12:02:00")
    with office(tmp_path, clock) as desk:
        assert desk.at(f"{DAY} 12:01:00") == names(DAY, "12:01:00", "12:02:00")
        assert desk.at(f"{DAY} 12:03:00") == names(DAY, "12:01:00", "12:02:00", "12:03:00")


def test_a_clock_that_is_set_forward_is_like_a_time_without_anybody(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *", id="s", catch_up="one")
        desk.book("* * * * *", id="t", catch_up="skip")
        assert desk.at(f"{DAY} 18:00:30") == names(DAY, "18:00:00")


def test_a_supervisor_without_workers_books_and_does_not_fire(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock, workers=0) as desk:
        desk.book("* * * * *", catch_up="one")
        assert desk.at(f"{DAY} 12:01:00") == []
        desk.asks(Trigger(7, desk.supervisor.ledger.lease()[0], "s"))
        assert desk.runs() == ["s@manual-2026-11-24T12:01:00Z"]
    with office(tmp_path, clock) as desk:
        assert desk.fire() == ["s@manual-2026-11-24T12:01:00Z", *names(DAY, "12:01:00")]


def test_a_run_by_hand_is_one_run_however_often_it_is_asked_for(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *")
        message = Trigger(7, desk.supervisor.ledger.lease()[0], "s")
        name = desk.asks(message).text
        assert desk.asks(message).text == name
        clock.set(f"{DAY} 12:00:07")
    with office(tmp_path, clock) as desk:
        assert desk.asks(message).text == name
        assert desk.runs() == [name]
        desk.ends(name)
        assert desk.asks(message).text == name


def test_what_is_deleted_is_gone_and_may_come_again(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *")
        assert desk.at(f"{DAY} 12:01:00") == names(DAY, "12:01:00")
        desk.replan("delete")
        desk.replan("delete")
        assert desk.at(f"{DAY} 12:02:00") == names(DAY, "12:01:00")
        assert desk.asks(ListPlans(7)).rows == []
        for expression in ("*/3 * * * *", "* * * * *"):  # in one group
            desk.guest.says(Book(7, "s", 1, b"pargs", b"f" * 16, expression, "UTC", "skip", "allow"))
            desk.guest.says(Replan(7, "s", "delete"))
        desk.supervisor.committer.settle()
        assert desk.room.rows("SELECT id FROM dq_schedule") == []
        assert len(desk.guest.hears(object)) == 4
        desk.book("* * * * *")
        assert desk.at(f"{DAY} 12:03:00") == names(DAY, "12:01:00", "12:03:00")


def test_refusals(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *")
        desk.workflow("m:other", 2)
        refused = [
            desk.book("* * * *"),
            desk.book("* * * * *", "Mars/Phobos"),
            desk.book("* * * * *", function=2),
            desk.replan("pause", "nobody"),
            desk.asks(Trigger(7, desk.supervisor.ledger.lease()[0], "nobody")),
        ]
        assert all(isinstance(answer, Refused) for answer in refused)
        errors = [answer.error for answer in refused if isinstance(answer, Refused)]
        assert errors == ["BadSchedule", "BadSchedule", "ScheduleConflict", "NoSuchSchedule", "NoSuchSchedule"]
        assert desk.room.rows("SELECT id, expression, function FROM dq_schedule") == [("s", "* * * * *", 1)]


def test_what_this_machine_does_not_understand_is_paused_with_a_word(tmp_path: Path, clock: Clock) -> None:
    with office(tmp_path, clock) as desk:
        desk.book("* * * * *")
        desk.supervisor.schedules.put(desk.supervisor.schedules.rows["s"]._replace(tz="Mars/Phobos"))
        assert desk.at(f"{DAY} 12:01:00") == []
        assert "there is no time zone 'Mars/Phobos'" in desk.notices[0]
        assert "dq schedules resume s" in desk.notices[0]
        assert desk.column("paused") == 1


@pytest.mark.parametrize(
    ("tz", "begin", "end", "expected"),
    [
        ("Europe/Berlin", "2026-10-24 12:00:00", "2026-10-25 12:00:00", ["s@2026-10-25T00:30:00Z"]),
        ("Europe/Berlin", "2026-03-28 12:00:00", "2026-03-29 12:00:00", ["s@2026-03-29T01:00:00Z"]),
        ("America/New_York", "2026-10-31 12:00:00", "2026-11-01 12:00:00", ["s@2026-11-01T07:30:00Z"]),
        ("America/New_York", "2026-03-07 12:00:00", "2026-03-08 12:00:00", ["s@2026-03-08T07:00:00Z"]),
    ],
)
def test_half_past_two_on_the_day_the_clocks_change(
    tmp_path: Path, tz: str, begin: str, end: str, expected: list[str]
) -> None:
    clock = Clock(begin)
    with office(tmp_path, clock) as desk:
        desk.book("30 2 * * *", tz, catch_up="all")
    clock.set(end)
    with office(tmp_path, clock) as desk:
        assert desk.fire() == expected
