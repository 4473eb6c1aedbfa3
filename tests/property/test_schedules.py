"""Whatever the expression and however often the supervisor is killed: each time fires, and none fires twice."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from dq.executor import times
from tests.unit.timekeeping import SECOND, Clock, office

_EXPRESSIONS = st.builds(
    lambda *fields: " ".join(fields),
    st.sampled_from(["*", "*/7", "0", "30", "0,15", "10-20/5"]),
    st.sampled_from(["*", "*/3", "2", "1-3", "0,2,22"]),
    st.sampled_from(["*", "L", "1,8,25,29"]),
    st.sampled_from(["*", "3,10,11"]),
    st.sampled_from(["*", "SUN", "MON-FRI", "5L"]),
)
_BEGINS = st.sampled_from(["2026-03-28 10:00:00", "2026-10-24 10:00:00", "2026-10-31 10:00:00", "2026-03-07 10:00:00"])
# (seconds that pass, how the supervisor dies then: None it lives on, before it writes what is due, after it)
_LIFE = st.lists(
    st.tuples(st.integers(0, 50_000), st.sampled_from([None, "before", "after"])), min_size=2, max_size=5
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(_EXPRESSIONS, st.sampled_from(["Europe/Berlin", "America/New_York", "UTC"]), _BEGINS, _LIFE)
def test_every_time_fires_once(expression: str, tz: str, begin: str, life: list[tuple[int, str | None]]) -> None:
    clock, moments = Clock(begin), [*life]
    with tempfile.TemporaryDirectory() as name:
        with office(Path(name), clock) as desk:
            desk.book(expression, tz, catch_up="all")
        while moments:
            with office(Path(name), clock) as desk:
                death = None
                while moments and death is None:
                    seconds, death = moments.pop(0)
                    clock.micros += seconds * SECOND
                    desk.supervisor.alarms.run(clock.now())
                    if death != "before":
                        desk.supervisor.committer.commit()
        with office(Path(name), clock) as desk:
            assert desk.fire() == _all(expression, tz, begin, clock.now())


def _all(expression: str, tz: str, begin: str, end: int) -> list[str]:
    """The names of all runs from one walk through the times."""
    start = datetime.fromisoformat(begin).replace(tzinfo=UTC).astimezone(times.zone(tz))
    walk = (round(moment.timestamp()) * SECOND for moment in CronSim(expression, start))
    return [f"s@{times.stamp(at)}" for at in takewhile(lambda at: at <= end, walk)]
