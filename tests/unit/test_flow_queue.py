"""What of a queue makes sense, and what its limits count by."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import dq
from dq.crew.gates import Limits, describe, parse
from dq.flow.queue import KEY_MAX


@pytest.mark.parametrize(
    "limits",
    [
        {"concurrency": 0}, {"concurrency": -1}, {"concurrency": 1.5}, {"concurrency": True}, {"concurrency": 10**12},
        {"per_worker": 0}, {"rate": 5}, {"rate": (0, 1)}, {"rate": (1, 0)}, {"rate": (1, float("inf"))},
        {"rate": (1, float("nan"))}, {"rate": (1.5, 1)}, {"rate": (1, "s")}, {"rate": (1, 2, 3)}, {"key": "customer"},
    ],
)  # fmt: skip
def test_limits_without_sense_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="queue 'q'"):
        dq.Queue("q", **limits)


@pytest.mark.parametrize("name", ["", "a\nb", "\ud800", "x" * 201, 7])
def test_names_that_nobody_can_write_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="a queue's name"):
        dq.Queue(name)


def test_what_travels_is_what_was_said() -> None:
    queue = dq.Queue("q", concurrency=4, per_worker=2, rate=(100, timedelta(minutes=1)))
    assert parse(queue.pack()) == ("q", Limits(4, 2, 100, 60_000_000))
    assert parse(dq.Queue("q").pack()) == ("q", Limits())
    assert describe(Limits()) == "no limits"


def test_a_key_is_text_however_odd_it_is() -> None:
    queue = dq.Queue("q", key=lambda value, **_: value)
    assert queue.key_of((7,), {"other": 1}) == "7"
    assert queue.key_of(("\ud800",), {}) == "\\ud800"
    long, other = queue.key_of(("ä" * 500,), {}), queue.key_of(("ä" * 501,), {})
    assert long != other
    assert len(long.encode()) <= KEY_MAX + 9


@pytest.mark.parametrize(
    "options", [{"priority": 2**70}, {"priority": 1.5}, {"dedup": "\udfff"}, {"dedup": "x" * 1001}]
)
def test_terms_that_can_not_be_written_down_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        dq.step(**options)


def test_options_of_a_call_do_not_make_another_function() -> None:
    @dq.step
    def body() -> None: ...

    one, two = body.options(priority=1, dedup="a"), body.options(delay=3, dedup_for=4)
    assert one.settings.definition == two.settings.definition == body.settings.definition
    assert body.options(timeout=3).settings.definition != body.settings.definition
