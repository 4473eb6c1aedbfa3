"""When a schedule is due: cron expressions and intervals, checked where they are said, enumerated where they fire.

The supervisor, which fires, and clients, which refuse nonsense at the door, share this. Times are whole microseconds
since 1970 in UTC. What parses expressions is imported with the first schedule, so that nobody else pays for it.
"""

from __future__ import annotations

from itertools import islice, takewhile
from typing import TYPE_CHECKING, Protocol

from dq.errors import BadSchedule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, tzinfo

CATCH_UP = ("skip", "one", "all")
OVERLAP = ("skip", "queue", "allow")
EVERY = "every "  # begins the text of an interval: "every 90 s"
SECOND = 1_000_000
_EVERY_MAX = 366 * 86400 * SECOND


class Times(Protocol):
    """All times at which a schedule is due."""

    def first(self, now: int) -> int:
        """When a schedule that is new at `now` is due. Raises BadSchedule where that is never."""
        ...

    def next(self, due: int, now: int) -> int:
        """The first time after `now` and after `due`, which is one of them. Raises BadSchedule where there is none."""
        ...

    def latest(self, due: int, now: int, count: int) -> tuple[list[int], bool]:
        """The last `count` times from `due`, which is one of them, to `now`, and whether there are more."""
        ...


def parse(expression: str, tz: str) -> Times:
    """The times of a recorded schedule. Raises BadSchedule, which says what is wrong and shows what is right."""
    if expression.startswith(EVERY):
        return _Every(_micros(expression))
    return _Cron(expression, zone(tz))


def check(expression: str, tz: str, catch_up: str, overlap: str) -> Times:
    """The same where a schedule comes in: the words it is described with must be known, and must not contradict."""
    if catch_up not in CATCH_UP:
        raise BadSchedule(f"catch_up is {catch_up!r}; it is one of {', '.join(CATCH_UP)}")
    if overlap not in OVERLAP:
        raise BadSchedule(f"overlap is {overlap!r}; it is one of {', '.join(OVERLAP)}")
    if catch_up == "all" and overlap != "allow":
        raise BadSchedule(
            f'catch_up="all" and overlap="{overlap}" contradict each other: each missed time would find the run of the one '
            'before it unfinished, and be dropped. Use overlap="allow", or catch_up="one"'
        )
    return parse(expression, tz)


def every(micros: int) -> str:
    """The text of an interval. Raises BadSchedule for one that is too short or too long.

    >>> every(90_000_000), every(1_500_000)
    ('every 90 s', 'every 1.5 s')
    """
    if not SECOND <= micros <= _EVERY_MAX:
        raise BadSchedule(
            f"every is {micros / SECOND:g} s; it is a time between a second and a year, such as timedelta(minutes=5)"
        )
    whole, rest = divmod(micros, SECOND)
    return f"{EVERY}{whole}{f'.{rest:06d}'.rstrip('0') if rest else ''} s"


def zone(name: str) -> tzinfo:
    """The time zone of a name such as Europe/Berlin. Raises BadSchedule."""
    from datetime import UTC

    if name == "UTC":
        return UTC
    from difflib import get_close_matches
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        known = available_timezones()
        near = sorted(each for each in known if name and name.lower() in each.lower()) or get_close_matches(name, known)
        hint = (
            f"Did you mean {', '.join(near[:3])}?" if near else "Such names are UTC, Europe/Berlin, America/New_York."
        )
        if not known:
            hint = "This machine has no time zones at all: `pip install tzdata`."
        raise BadSchedule(f"there is no time zone {name!r}. {hint}") from None


def stamp(at: int) -> str:
    """A time as it stands in the id of a run.

    >>> stamp(1_795_543_500_000_000)
    '2026-11-24T18:05:00Z'
    """
    from datetime import UTC, datetime

    whole, rest = divmod(at, SECOND)
    told = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{told}.{rest:06d}Z" if rest else f"{told}Z"


class _Every:
    """An interval, counted in real time from the second in which the schedule was put on record."""

    def __init__(self, micros: int) -> None:
        self._micros = micros

    def first(self, now: int) -> int:
        return now - now % SECOND + self._micros

    def next(self, due: int, now: int) -> int:
        return due + max(1, (now - due) // self._micros + 1) * self._micros

    def latest(self, due: int, now: int, count: int) -> tuple[list[int], bool]:
        last = max(0, (now - due) // self._micros)
        first = max(0, last + 1 - count)
        return [due + number * self._micros for number in range(first, last + 1)], first > 0


class _Cron:
    """A cron expression in a time zone.

    Times of the day follow Debian's cron over a change of the clocks: in an hour that occurs twice they are due once, and
    out of one that does not exist they move to its end. Where minute or hour begin with a star, real time counts.
    """

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self._text = " ".join(expression.split())
        self._zone = zone
        fields = self._text.split(" ")
        # The parser knows that rule for five fields only.
        self._fixed = len(fields) == 6 and not (fields[1].startswith("*") or fields[2].startswith("*"))
        self._iterate(0)

    def first(self, now: int) -> int:
        return self.next(now, now)

    def next(self, due: int, now: int) -> int:
        for at in self._after(max(due, now)):
            return at
        raise BadSchedule(f"{self._text!r} is never due: no date of the next 50 years fits it")

    def latest(self, due: int, now: int, count: int) -> tuple[list[int], bool]:
        found = [due, *self._until(due, now, count)]
        if len(found) <= count:
            return found, False
        # The times after a moment become fewer as it gets later, so the moment with just `count` of them can be halved to.
        low, high = due // SECOND, now // SECOND
        while high - low > 1:
            middle = (low + high) // 2
            if len(self._until(middle * SECOND, now, count)) == count:
                low = middle
            else:
                high = middle
        return self._until(low * SECOND, now, count), True

    def _until(self, at: int, now: int, count: int) -> list[int]:
        """The first `count` times after `at`, those up to `now`."""
        return list(islice(takewhile(lambda due: due <= now, self._after(at)), count))

    def _after(self, at: int) -> Iterator[int]:
        last = at
        for moment in self._iterate(at):
            due = round(moment.timestamp()) * SECOND
            if due > last:  # in an hour that occurs twice the parser begins before `at`
                last = due
                yield due

    def _iterate(self, at: int) -> Iterator[datetime]:
        """Raises BadSchedule where the expression is none."""
        from datetime import datetime

        from cronsim import CronSim, CronSimError

        start = datetime.fromtimestamp(at // SECOND, self._zone)
        try:
            found = CronSim(self._text, start.replace(tzinfo=None) if self._fixed else start)
        except (CronSimError, AssertionError, ValueError) as error:
            raise BadSchedule(
                f"{self._text!r} is no cron expression ({str(error).lower() or 'it makes no sense'}). It has the fields minute, "
                'hour, day of month, month and day of week, such as "30 2 * * mon-fri" or "*/5 * * * *"; a sixth one before '
                "them is for seconds"
            ) from error
        return self._settle(found) if self._fixed else iter(found)

    def _settle(self, moments: Iterator[datetime]) -> Iterator[datetime]:
        """Clock times as real ones."""
        from datetime import UTC, timedelta

        for moment in moments:
            real = moment.replace(tzinfo=self._zone, fold=0)
            while real.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None) != real.replace(tzinfo=None):
                real += timedelta(minutes=1)
            yield real


def _micros(expression: str) -> int:
    from decimal import Decimal, InvalidOperation

    number = expression.removeprefix(EVERY).removesuffix(" s")
    try:
        micros = int(Decimal(number) * SECOND)
    except (InvalidOperation, ValueError, OverflowError):
        raise BadSchedule(f"{expression!r} is no interval; it is written like 'every 90 s'") from None
    every(micros)
    return micros
