"""What a run publishes is read from outside: once, in order, whatever is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import dq
from tests.process import journeys


@pytest.mark.parametrize("victim", ["supervisor", "host"])
def test_who_follows_a_run_sees_each_event_once_and_in_order(engine: dq.Engine, tmp_path: Path, victim: str) -> None:
    run = engine.start(journeys.telling, str(tmp_path), 5)
    seen: list[tuple[str, int]] = []
    for event in run.follow():
        seen.append((event.key, event.value))
        if seen[-1] == ("square", 4):
            os.kill(next(member.pid for member in engine.census().rows if member.kind == victim), signal.SIGKILL)
            run.signal("go on")
    assert seen == [(key, value) for n in range(5) for key, value in (("number", n), ("square", n * n))]
    assert run.result(30) == 5
    assert (run.published("number"), run.published("square")) == (4, 16)
    assert [event.value for event in run.follow()][-1] == 16, "also when it has ended"


def test_what_was_not_published_has_a_default(engine: dq.Engine, tmp_path: Path) -> None:
    run = engine.start(journeys.telling, str(tmp_path), 0)
    assert run.result(30) == 0
    assert (run.published("number"), run.published("number", -1)) == (None, -1)
    assert list(run.follow()) == []


def test_outside_of_a_run_nothing_is_published() -> None:
    with pytest.raises(dq.DqError, match="no run is running here"):
        dq.publish("a", 1)
