"""The wait that all tests use ends when it should, and says what it waited for."""

from __future__ import annotations

import pytest

from tests.waiting import wait_until


def test_a_wait_returns_the_value_that_ended_it() -> None:
    values = iter([0, None, "here"])
    assert wait_until(lambda: next(values)) == "here"


def test_a_wait_fails_with_the_last_value() -> None:
    with pytest.raises(AssertionError, match=r"the bus did not come true in 0 s; last value: 0"):
        wait_until(lambda: 0, timeout=0, what="the bus")
