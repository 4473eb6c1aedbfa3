"""Due times: what is due is done, in order, once; and the loop knows how long it may sleep."""

from __future__ import annotations

from functools import partial

from dq.crew.timers import SPARE, Timers


def test_what_is_due_is_done_in_the_order_of_its_time() -> None:
    timers, done = Timers(), list[str]()
    for due, name in [(3.0, "late"), (1.0, "first"), (2.0, "second"), (1.0, "first too")]:
        timers.at(due, partial(done.append, name))
    timers.run(2.0)
    assert done == ["first", "first too", "second"]
    timers.run(2.5)
    assert done == ["first", "first too", "second"]
    timers.run(3.0)
    assert done[3:] == ["late"]


def test_how_long_the_loop_may_sleep() -> None:
    timers = Timers()
    assert timers.timeout(0.0) is None
    timers.at(5.0, lambda: None)
    timers.at(2.0, lambda: None)
    assert timers.timeout(1.5) == 0.5
    assert timers.timeout(9.0) == 0.0, "never less: that would be for ever"
    timers.run(9.0)
    assert timers.timeout(9.0) is None


def test_an_action_may_set_the_next_one() -> None:
    timers, done = Timers(), list[float]()

    def tick(now: float) -> None:
        done.append(now)
        timers.at(now + 1.0, partial(tick, now + 1.0))

    tick(1.0)
    timers.run(1.5)
    assert done == [1.0]
    timers.run(3.0)
    assert done == [1.0, 2.0, 3.0]


def test_what_is_cancelled_is_not_done_and_leaves_the_memory() -> None:
    timers, done = Timers(), list[int]()
    kept = timers.at(5.0, partial(done.append, 0))
    for number in range(1, 50_000):
        timers.cancel(timers.at(1000.0 + number, partial(done.append, number)))
        assert len(timers) <= 1 + SPARE + 1
    timers.run(1e9)
    assert done == [0]
    timers.cancel(kept)  # it is done, so there is nothing to cancel
    assert not timers


def test_an_action_may_cancel_another_that_is_due() -> None:
    timers, done = Timers(), list[str]()
    first = timers.at(2.0, partial(done.append, "late"))
    timers.at(1.0, lambda: timers.cancel(first))
    timers.run(3.0)
    assert not done
    assert timers.timeout(3.0) is None
