"""When schedules are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from dq.errors import BadSchedule
from dq.executor import times
from dq.executor.times import SECOND

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def micros(moment: str) -> int:
    """A moment in UTC, as people write it."""
    return round(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()) * SECOND


def due(expression: str, tz: str, after: str, count: int) -> list[str]:
    """The next times after a moment, as a supervisor comes to them: each from the one before."""
    plan, at, found = times.parse(expression, tz), micros(after), []
    for _ in range(count):
        at = plan.next(at, at)
        found.append(times.stamp(at)[5:-4].replace("T", " "))
    return found


@pytest.mark.parametrize(
    ("expression", "tz", "after", "expected"),
    [
        # In Berlin 02:00 to 03:00 occurs twice on 2026-10-25 (UTC 00 and 01), and not at all on 2026-03-29.
        ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["10-25 00:30", "10-26 01:30"]),
        ("0 30 2 * * *", BERLIN, "2026-10-24 12:00", ["10-25 00:30", "10-26 01:30"]),
        ("30 2 * * *", BERLIN, "2026-03-28 12:00", ["03-29 01:00", "03-30 00:30"]),
        ("0 30 2 * * *", BERLIN, "2026-03-28 12:00", ["03-29 01:00", "03-30 00:30"]),
        ("0,30 2 * * *", BERLIN, "2026-03-28 12:00", ["03-29 01:00", "03-30 00:00"]),
        ("0 0,30 2 * * *", BERLIN, "2026-03-28 12:00", ["03-29 01:00", "03-30 00:00"]),
        ("30 * * * *", BERLIN, "2026-10-24 23:45", ["10-25 00:30", "10-25 01:30", "10-25 02:30"]),
        ("*/30 * * * *", BERLIN, "2026-10-25 00:00", ["10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"]),
        ("*/30 * * * *", BERLIN, "2026-03-29 00:00", ["03-29 00:30", "03-29 01:00", "03-29 01:30"]),
        # In New York 01:00 to 02:00 occurs twice on 2026-11-01 (UTC 05 and 06); 02:00 to 03:00 is missing on 2026-03-08.
        ("30 1 * * *", NEW_YORK, "2026-10-31 12:00", ["11-01 05:30", "11-02 06:30"]),
        ("30 2 * * *", NEW_YORK, "2026-03-07 12:00", ["03-08 07:00", "03-09 06:30"]),
        ("15,45 1-2 * * *", NEW_YORK, "2026-11-01 05:00", ["11-01 05:15", "11-01 05:45", "11-01 07:15", "11-01 07:45"]),
        ("*/20 * * * *", NEW_YORK, "2026-11-01 05:20", ["11-01 05:40", "11-01 06:00", "11-01 06:20", "11-01 06:40"]),
    ],
)
def test_a_change_of_the_clocks(expression: str, tz: str, after: str, expected: list[str]) -> None:
    assert due(expression, tz, after, len(expected)) == expected


@pytest.mark.parametrize("minute", range(0, 120, 10))
def test_whoever_begins_in_the_hour_that_occurs_twice_finds_the_same_times(minute: int) -> None:
    begin = (datetime(2026, 10, 25, tzinfo=UTC) + timedelta(minutes=minute)).isoformat(" ")[:16]
    expected = [at for at in ("10-25 00:20", "10-25 00:40") if at > begin[5:]] + ["10-26 01:20"]
    assert due("20,40 2 * * *", BERLIN, begin, len(expected)) == expected


def test_seconds_come_first_in_six_fields() -> None:
    begin = micros("2026-11-24 18:05:00")
    plan = times.parse("*/20 5 18 * * *", "UTC")
    assert plan.latest(plan.first(begin), begin + 3600 * SECOND, 9) == ([begin + n * SECOND for n in (20, 40)], False)


def test_an_interval_counts_from_a_whole_second() -> None:
    plan = times.parse(times.every(90 * SECOND), "UTC")
    begin = micros("2026-11-24 18:05:00")
    first = plan.first(begin + 123_456)
    assert first == begin + 90 * SECOND
    assert plan.next(first, first + 5) == first + 90 * SECOND
    assert plan.next(first, first + 90 * SECOND) == first + 180 * SECOND
    assert plan.latest(first, first + 360 * SECOND, 3) == ([first + n * 90 * SECOND for n in (2, 3, 4)], True)
    assert plan.latest(first, first + 89 * SECOND, 3) == ([first], False)


def test_a_day_of_seconds_is_not_counted_one_by_one() -> None:
    plan = times.parse("* * * * * *", "UTC")
    begin = micros("2016-01-01")
    now = micros("2026-01-01") + 5
    assert plan.latest(begin, now, 3) == ([now - 5 - n * SECOND for n in (2, 1, 0)], True)


_FIELD = st.sampled_from
_EXPRESSIONS = st.builds(
    lambda *fields: " ".join(fields),
    _FIELD(["*", "*/7", "0", "30", "0,15", "10-20/5"]),
    _FIELD(["*", "*/3", "2", "1-3", "0,2,22"]),
    _FIELD(["*", "1", "L", "8,25,29", "*/10"]),
    _FIELD(["*", "3", "10-11", "*/2"]),
    _FIELD(["*", "0", "SUN#1", "MON-FRI", "5L"]),
)
_YEAR = 365 * 86400


@settings(max_examples=30, deadline=None)
@given(
    _EXPRESSIONS,
    st.sampled_from([BERLIN, NEW_YORK, "UTC"]),
    st.integers(0, 2 * _YEAR),
    st.integers(1, 400),
    st.integers(1, 9),
)
def test_the_last_times_are_the_end_of_all_times(expression: str, tz: str, begin: int, hours: int, count: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=begin)
    plan = times.parse(expression, tz)
    first = plan.first(round(start.timestamp()) * SECOND)
    now = first + hours * 3600 * SECOND
    zone = times.zone(tz)
    moments = CronSim(expression, datetime.fromtimestamp(first / SECOND, zone))
    walked = (round(moment.timestamp()) * SECOND for moment in islice(moments, 30000))
    later = [at for at in takewhile(lambda at: at <= now, walked) if at > first]
    assert plan.latest(first, now, count) == ([first, *later][-count:], len(later) + 1 > count)
    assert plan.latest(first, now, 10**6) == ([first, *later], False)


@pytest.mark.parametrize(
    ("expression", "tz", "words", "complaint"),
    [
        ("61 * * * *", "UTC", ("skip", "skip"), r"no cron expression \(bad minute\).*such as"),
        ("* * *", "UTC", ("skip", "skip"), "wrong number of fields"),
        ("0 0 30 2 *", "UTC", ("skip", "skip"), "bad day-of-month"),
        ("", "UTC", ("skip", "skip"), "wrong number of fields"),
        ("* * * * *", "Berlin", ("skip", "skip"), "Did you mean Europe/Berlin"),
        ("* * * * *", "", ("skip", "skip"), "no time zone ''. Such names are"),
        ("* * * * *", "../../etc/passwd", ("skip", "skip"), "no time zone"),
        ("* * * * *", "Europe", ("skip", "skip"), "no time zone 'Europe'"),
        ("* * * * *", "UTC", ("most", "skip"), "catch_up is 'most'; it is one of skip, one, all"),
        ("* * * * *", "UTC", ("one", "wait"), "overlap is 'wait'; it is one of skip, queue, allow"),
        ("* * * * *", "UTC", ("all", "queue"), "contradict each other"),
        ("every x s", "UTC", ("one", "skip"), "no interval"),
        ("every 0.5 s", "UTC", ("one", "skip"), "between a second and a year"),
    ],
)
def test_what_makes_no_sense_is_refused(expression: str, tz: str, words: tuple[str, str], complaint: str) -> None:
    with pytest.raises(BadSchedule, match=complaint):
        times.check(expression, tz, *words)


def test_a_date_that_never_comes_is_refused() -> None:
    with pytest.raises(BadSchedule, match="never due: no date of the next 50 years"):
        times.parse("0 0 */31 * MON#2", "UTC").first(micros("2026-01-01"))
