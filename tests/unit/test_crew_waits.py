"""Timers and signals on record: kept over restarts, taken once, in order; what came in time wins."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dq import errors
from dq.executor.failures import Failure
from dq.executor.frames import Done, Refused, Resume
from dq.model.payload import HEAD
from tests.unit.hostroom import SECOND, START, Clock, Lodge, lodge


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inn(tmp_path: Path, clock: Clock) -> Iterator[Lodge]:
    with lodge(tmp_path, clock) as inn:
        yield inn


def raised(payload: bytes) -> BaseException:
    failure = msgspec.msgpack.decode(payload[HEAD.size :], type=Failure)
    error: BaseException = pickle.loads(failure.pickled)
    return error


def test_a_timer_ends_when_it_is_due_and_not_before(inn: Lodge) -> None:
    run = inn.start()
    step = inn.sleeps(run, 10)
    inn.turn(9)
    assert inn.state(step) == ""
    inn.turn(2)
    assert inn.state(step) == "completed"
    assert [row[:3] for row in inn.told()] == [(run.id, step, 1)]


def test_timers_end_in_the_order_of_their_due_times(inn: Lodge) -> None:
    run = inn.start()
    steps = [inn.sleeps(run, seconds) for seconds in (30, 10, 20)]
    inn.turn(60)
    assert [row[1] for row in inn.told()] == [steps[1], steps[2], steps[0]]


def test_a_timer_keeps_its_due_time_over_restarts(tmp_path: Path, clock: Clock) -> None:
    with lodge(tmp_path, clock) as inn:
        run = inn.start()
        step = inn.sleeps(run, 100)
        inn.turn()
        due = inn.room.rows("SELECT due_at FROM dq_term")
    clock.at += 40 * SECOND
    with lodge(tmp_path, clock) as inn:
        assert inn.room.rows("SELECT due_at FROM dq_term") == due
        inn.turn(50)
        assert inn.state(step) == ""
        inn.turn(11)
        assert inn.state(step) == "completed"


def test_a_timer_that_was_due_while_nobody_was_at_work_ends_at_once(tmp_path: Path, clock: Clock) -> None:
    with lodge(tmp_path, clock) as inn:
        step = inn.sleeps(inn.start(), 100)
        inn.turn()
    clock.at += 1000 * SECOND
    with lodge(tmp_path, clock) as inn:
        inn.turn()
        assert inn.state(step) == "completed"


def test_a_timer_that_is_withdrawn_leaves_nothing_behind(inn: Lodge) -> None:
    run = inn.start()
    step = inn.sleeps(run, 10)
    inn.withdraws(run, step)
    inn.withdraws(run, step)
    assert inn.state(step) == "cancelled"
    inn.turn(20)
    assert inn.room.rows("SELECT count(*) FROM dq_result") == [(1,)]
    assert run.open == 0
    assert not run.waits


@pytest.mark.parametrize("first", ["signal", "wait"])
def test_a_signal_is_there_whether_it_comes_before_the_wait_or_after(inn: Lodge, first: str) -> None:
    run = inn.start()
    if first == "signal":
        assert isinstance(inn.signal("r", payload=b"one"), Done)
        step = inn.waits(run)
    else:
        step = inn.waits(run)
        inn.turn()
        assert isinstance(inn.signal("r", payload=b"one"), Done)
    inn.turn()
    assert inn.results()[step] == ("completed", b"one")
    assert inn.room.rows("SELECT name, payload, step FROM dq_signal") == [("go", b"one", step)]


def test_signals_are_taken_once_and_in_order(inn: Lodge) -> None:
    run = inn.start()
    for payload in (b"1", b"2"):
        inn.signal("r", payload=payload)
    inn.signal("r", "other", b"x")
    steps = [inn.waits(run) for _ in range(4)]
    inn.turn()
    for payload in (b"3", b"4", b"5"):
        inn.signal("r", payload=payload)
    assert [inn.results()[step][1] for step in steps] == [b"1", b"2", b"3", b"4"]
    assert inn.room.rows("SELECT payload FROM dq_signal WHERE step IS NULL ORDER BY id") == [(b"x",), (b"5",)]


def test_signals_are_kept_over_restarts_and_not_taken_again(tmp_path: Path, clock: Clock) -> None:
    with lodge(tmp_path, clock) as inn:
        run = inn.start()
        for payload in (b"1", b"2", b"3"):
            inn.signal("r", payload=payload)
        first = inn.waits(run)
        inn.turn()
    with lodge(tmp_path, clock) as inn:
        inn.turn()
        run = inn.supervisor.ledger.by_name["r"]
        second = inn.waits(run)
        inn.turn()
        assert [inn.results()[step][1] for step in (first, second)] == [b"1", b"2"]
    with lodge(tmp_path, clock) as inn:
        inn.turn()
        third = inn.waits(inn.supervisor.ledger.by_name["r"])
        inn.turn()
        assert inn.results()[third] == ("completed", b"3")


def test_a_wait_without_a_signal_times_out_and_one_that_comes_later_is_kept(inn: Lodge) -> None:
    run = inn.start()
    step = inn.waits(run, seconds=10)
    inn.turn(11)
    state, payload = inn.results()[step]
    assert state == "failed"
    assert isinstance(raised(payload), errors.SignalTimeout)
    inn.signal("r", payload=b"late")
    again = inn.waits(run, seconds=10)
    inn.turn()
    assert inn.results()[again] == ("completed", b"late")


@pytest.mark.parametrize(("sent", "state"), [(9, "completed"), (11, "failed")])
def test_what_was_sent_in_time_wins_though_nobody_was_at_work(
    tmp_path: Path, clock: Clock, sent: int, state: str
) -> None:
    with lodge(tmp_path, clock) as inn:
        run = inn.start()
        step = inn.waits(run, seconds=10)
        inn.turn()
    clock.at = START + sent * SECOND
    with lodge(tmp_path, clock, workers=0) as inn:  # what `dq signal` brings up where nobody is at work
        assert isinstance(inn.signal("r", payload=b"sent"), Done)
    clock.at = START + 1000 * SECOND
    with lodge(tmp_path, clock) as inn:
        inn.turn()
        assert inn.state(step) == state
        again = inn.waits(inn.supervisor.ledger.by_name["r"], seconds=10)
        inn.turn(11)
        assert inn.results()[again][0] == ("failed" if state == "completed" else "completed")


def test_a_signal_to_nobody_is_refused(inn: Lodge) -> None:
    answer = inn.signal("nobody's run")
    assert isinstance(answer, Refused)
    assert answer.error == "NoSuchRun"
    assert "dq start FILE:WORKFLOW --id 'nobody'\"'\"'s run'" in answer.text
    inn.finishes(inn.start())
    answer = inn.signal("r")
    assert isinstance(answer, Refused)
    assert (answer.error, answer.text) == ("RunEnded", "run 'r' is completed, so it can't be signalled.")
    assert not inn.room.rows("SELECT * FROM dq_signal")


def test_a_blocked_run_keeps_its_signals(inn: Lodge) -> None:
    run = inn.start()
    inn.supervisor.hosts._block(inn.host, run.id, "the code has changed")
    inn.turn()
    assert isinstance(inn.signal("r", payload=b"kept"), Done)
    inn.guest.says(Resume(1, "r"))
    inn.turn()
    step = inn.waits(run)
    inn.turn()
    assert inn.results()[step] == ("completed", b"kept")


def test_a_signal_that_is_sent_again_counts_once(tmp_path: Path, clock: Clock) -> None:
    with lodge(tmp_path, clock) as inn:
        inn.start()
        key = inn.first
        inn.signal("r")
        assert isinstance(inn.signal("r", key=key), Done), "on the same connection"
    with lodge(tmp_path, clock) as inn:
        assert isinstance(inn.signal("r", key=key), Done), "after a reconnect, to the next supervisor"
        run = inn.supervisor.ledger.by_name["r"]
        inn.turn()
        steps = [inn.waits(run), inn.waits(run)]
        inn.turn()
        assert [inn.state(step) for step in steps] == ["completed", ""]
        inn.finishes(run)
        assert isinstance(inn.signal("r", key=key), Done), "it was delivered, though the run has ended since"
        assert inn.room.rows("SELECT count(*) FROM dq_signal") == [(1,)]


def test_the_end_of_a_run_ends_its_waits_and_forgets_its_signals(inn: Lodge) -> None:
    run = inn.start()
    steps = [inn.sleeps(run, 3600), inn.waits(run), inn.waits(run, "other", 60)]
    inn.signal("r", "never taken")
    inn.finishes(run)
    assert inn.states() == {"r": "completed"}
    assert [inn.state(step) for step in steps] == ["cancelled"] * 3
    assert not inn.supervisor.waits._open
    assert not inn.supervisor.waits._signals


def test_what_nobody_can_end_fails(inn: Lodge) -> None:
    run = inn.start()
    step = inn.asks(run, inn.builtin("dq:unheard_of"))
    inn.turn()
    state, payload = inn.results()[step]
    assert state == "failed"
    assert "nothing that this version of dq can end" in str(raised(payload))
