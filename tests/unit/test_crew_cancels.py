"""Cancels: heard once and in their turn; what waits ends, what runs is killed first; children go with their parents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.executor.frames import Done, Forget, Refused, Term
from dq.model.states import CANCELLED
from tests.unit.hostroom import SECOND, Clock, Lodge, lodge, worker


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inn(tmp_path: Path, clock: Clock) -> Iterator[Lodge]:
    with lodge(tmp_path, clock) as inn:
        yield inn


def done(answer: Done | Refused) -> str:
    assert isinstance(answer, Done), answer
    return answer.text


def test_the_first_cancel_asks_and_the_second_ends(inn: Lodge) -> None:
    run = inn.start()
    step = inn.waits(run)
    assert "a second cancel ends it at once" in done(inn.cancel("r"))
    assert [row[:4] for row in inn.told()] == [(run.id, 0, 1, CANCELLED)]
    assert (inn.states(), inn.state(step)) == ({"r": "running"}, "")
    assert done(inn.cancel("r")) == "run r is cancelled"
    assert (inn.states(), inn.state(step)) == ({"r": "cancelled"}, "cancelled")
    assert any(isinstance(message, Forget) and message.run == run.id for message in inn.heard)
    answer = inn.cancel("r")
    assert isinstance(answer, Refused)
    assert (answer.error, answer.text) == ("RunEnded", "run 'r' is cancelled, so it can't be cancelled.")


def test_a_cancel_has_its_place_among_the_results(inn: Lodge) -> None:
    run = inn.start()
    first, second = inn.sleeps(run, 1), inn.sleeps(run, 3)
    inn.turn(2)
    inn.cancel("r")
    inn.turn(2)
    assert [row[1:3] for row in inn.told()] == [(first, 1), (0, 2), (second, 3)]
    assert inn.room.rows("SELECT cancel_seq FROM dq_run") == [(2,)]


def test_a_cancel_that_is_sent_again_is_not_a_second_one(tmp_path: Path, clock: Clock) -> None:
    with lodge(tmp_path, clock) as inn:
        inn.start()
        key = inn.first
        for _ in range(2):
            assert "asked to end" in done(inn.cancel("r", key=key))
    with lodge(tmp_path, clock) as inn:
        assert "asked to end" in done(inn.cancel("r", key=key))
        assert inn.states() == {"r": "running"}
        assert done(inn.cancel("r")) == "run r is cancelled"


@pytest.mark.parametrize("now", [False, True])
def test_a_cancel_that_has_ended_the_run_may_be_sent_again(tmp_path: Path, clock: Clock, now: bool) -> None:
    with lodge(tmp_path, clock) as inn:
        inn.start()
        if not now:
            inn.cancel("r")
        key = inn.first
        assert done(inn.cancel("r", now=now)) == "run r is cancelled"
    with lodge(tmp_path, clock) as inn:
        assert done(inn.cancel("r", now=now, key=key)) == "run r is cancelled"


def test_now_ends_at_once(inn: Lodge) -> None:
    run = inn.start()
    step = inn.sleeps(run, 3600)
    assert done(inn.cancel("r", now=True)) == "run r is cancelled"
    assert (inn.states(), inn.state(step)) == ({"r": "cancelled"}, "cancelled")
    assert not inn.told()


def test_a_blocked_run_can_only_be_ended(inn: Lodge) -> None:
    run = inn.start()
    step = inn.waits(run)
    inn.supervisor.hosts._block(inn.host, run.id, "the code has changed")
    inn.turn()
    assert done(inn.cancel("r")) == "run r is cancelled"
    assert (inn.states(), inn.state(step)) == ({"r": "cancelled"}, "cancelled")


def test_nobody_is_refused(inn: Lodge) -> None:
    answer = inn.cancel("nobody")
    assert isinstance(answer, Refused)
    assert answer.error == "NoSuchRun"


def test_a_cancel_reaches_a_run_whose_host_is_gone(tmp_path: Path, clock: Clock) -> None:
    with lodge(tmp_path, clock) as inn:
        run = inn.start()
        inn.waits(run)
        inn.turn()
        inn.dies(inn.host)
        inn.cancel("r")
        assert not inn.told()
        inn.move_in()
        inn.turn()
        assigned = [message.cancel for message in inn.heard if hasattr(message, "cancel")]
        assert [cancel[0] for cancel in assigned] == [1]
    with lodge(tmp_path, clock) as inn:
        inn.turn()
        assert [message.cancel[2] for message in inn.heard if hasattr(message, "cancel")] == ["it was cancelled"]


def test_steps_that_wait_are_taken_back_and_the_one_that_runs_is_killed_first(inn: Lodge) -> None:
    run = inn.start()
    function = inn.room.function(cost=10**9)
    hand = worker(inn, function)
    running, pending = inn.asks(run, function), inn.asks(run, function)
    delayed = inn.asks(run, function, term=Term(0, after=60 * SECOND))
    inn.turn()
    (claim,) = hand.claims()
    assert [row[0] for row in claim.rows] == [running]
    hand.slot.begin(0, running, claim.epoch)
    inn.withdraws(run, running, pending, delayed)
    assert inn.killed == [hand.member]
    assert [inn.state(step) for step in (running, pending, delayed)] == ["", "cancelled", "cancelled"]
    inn.dies(hand.member)
    assert inn.state(running) == "cancelled"
    assert inn.room.rows("SELECT step, outcome, charged, cause FROM dq_attempt") == [
        (running, "cancelled", 0, "cancelled")
    ]
    assert sorted(row[1] for row in inn.told()) == sorted([running, pending, delayed])
    assert (run.open, inn.supervisor.scheduler.claimed) == (0, 0)


def test_a_result_that_was_there_before_the_kill_counts(inn: Lodge) -> None:
    run = inn.start()
    function = inn.room.function(cost=10**9)
    hand = worker(inn, function)
    step = inn.asks(run, function)
    inn.turn()
    (claim,) = hand.claims()
    hand.slot.begin(0, step, claim.epoch)
    inn.withdraws(run, step)
    hand.finishes(claim)
    inn.dies(hand.member)
    assert inn.results()[step] == ("completed", b"result")
    assert not inn.supervisor.results.doomed
    assert not inn.room.rows("SELECT * FROM dq_attempt")


def test_another_s_step_is_not_killed_for_one_that_waits_behind_it(inn: Lodge) -> None:
    function = inn.room.function(cost=1000)
    hand = worker(inn, function)
    mine, other = inn.start("mine"), inn.start("other")
    at_work, behind = inn.asks(other, function), inn.asks(mine, function)
    inn.turn()
    claims = hand.claims()
    epochs = {row[0]: claim.epoch for claim in claims for row in claim.rows}
    hand.slot.begin(0, at_work, epochs[at_work])
    inn.withdraws(mine, behind)
    assert not inn.killed
    assert hand.is_asked_back()
    assert inn.state(behind) == ""
    inn.supervisor.scheduler.gave_back(hand.member, [(epochs[behind], behind)])
    inn.supervisor.cancels.given_back(hand.member)
    inn.turn()
    assert inn.state(behind) == "cancelled"
    assert not inn.killed
    assert not inn.supervisor.results.doomed
    hand.finishes(next(claim for claim in claims if claim.epoch == epochs[at_work]), at_work)
    inn.turn()
    assert inn.state(at_work) == "completed"


def test_a_step_that_has_begun_meanwhile_is_killed_after_all(inn: Lodge) -> None:
    function = inn.room.function(cost=1000)
    hand = worker(inn, function)
    run = inn.start()
    first, second = inn.asks(run, function), inn.asks(run, function)
    inn.turn()
    (claim,) = hand.claims()
    hand.slot.begin(0, first, claim.epoch)
    inn.withdraws(run, second)
    hand.finishes(claim, first)
    hand.slot.begin(0, second, claim.epoch)
    inn.supervisor.cancels.given_back(hand.member)
    assert inn.killed == [hand.member]
    inn.dies(hand.member)
    assert [inn.state(first), inn.state(second)] == ["completed", "cancelled"]


def test_what_was_not_begun_when_its_worker_died_is_cancelled_without_an_attempt(inn: Lodge) -> None:
    function = inn.room.function(cost=1000)
    hand = worker(inn, function)
    run = inn.start()
    first, second = inn.asks(run, function), inn.asks(run, function)
    inn.turn()
    (claim,) = hand.claims()
    hand.slot.begin(0, first, claim.epoch)
    inn.withdraws(run, second)
    inn.dies(hand.member)
    assert [inn.state(first), inn.state(second)] == ["", "cancelled"]
    assert inn.room.rows("SELECT step, outcome FROM dq_attempt") == [(first, "crashed")]


def test_a_run_that_is_cancelled_for_good_ends_when_its_bodies_are_dead(inn: Lodge) -> None:
    run = inn.start()
    function = inn.room.function(cost=10**9)
    hand = worker(inn, function)
    step = inn.asks(run, function)
    inn.turn()
    hand.slot.begin(0, step, hand.claims()[0].epoch)
    inn.cancel("r", now=True)
    assert (inn.killed, inn.states()) == ([hand.member], {"r": "running"})
    inn.dies(hand.member)
    assert (inn.state(step), inn.states()) == ("cancelled", {"r": "cancelled"})


def test_a_run_whose_bodies_died_with_the_supervisor_is_heard_of_again(tmp_path: Path, clock: Clock) -> None:
    """Who was asked to end is still asked, and its step waits again."""
    with lodge(tmp_path, clock) as inn:
        run = inn.start()
        function = inn.room.function(cost=10**9)
        hand = worker(inn, function)
        step = inn.asks(run, function)
        inn.turn()
        hand.slot.begin(0, step, hand.claims()[0].epoch)
        inn.cancel("r")
        inn.withdraws(run, step)
        assert inn.state(step) == ""
    with lodge(tmp_path, clock) as inn:
        assert inn.states() == {"r": "running"}
        run = inn.supervisor.ledger.by_name["r"]
        inn.turn()
        inn.withdraws(run, step)  # as its host says when it has replayed it up to the cancel
        assert inn.state(step) == "cancelled"
        assert done(inn.cancel("r")) == "run r is cancelled"


@pytest.mark.parametrize("workers", [2, 0])
def test_an_end_at_once_that_is_acknowledged_holds_whoever_dies_before_the_bodies(
    tmp_path: Path, clock: Clock, workers: int
) -> None:
    with lodge(tmp_path, clock) as inn:
        run = inn.start()
        function = inn.room.function(cost=10**9)
        hand = worker(inn, function)
        step = inn.asks(run, function)
        inn.turn()
        hand.slot.begin(0, step, hand.claims()[0].epoch)
        assert done(inn.cancel("r", now=True)) == "run r is cancelled"
        assert inn.states() == {"r": "running"}
    with lodge(tmp_path, clock, workers=workers) as inn:
        inn.turn()
        assert (inn.state(step), inn.states()) == ("cancelled", {"r": "cancelled"})


def test_children_are_asked_once_and_end_with_their_parent(inn: Lodge) -> None:
    parent = inn.start()
    child_id = inn.asks(parent, inn.flow)
    inn.turn()
    child = inn.supervisor.ledger.runs[child_id]
    grandchild_id = inn.asks(child, inn.flow)
    inn.turn()
    step = inn.waits(inn.supervisor.ledger.runs[grandchild_id])
    inn.turn()
    assert set(inn.states()) == {"r", f"r/{child_id}", f"r/{grandchild_id}"}
    inn.told()
    for _ in range(2):
        inn.withdraws(parent, child_id)
    assert [row[:2] for row in inn.told()] == [(child_id, 0)], "asked twice, it hears of it once"
    assert set(inn.states().values()) == {"running"}
    inn.cancel("r", now=True)
    assert set(inn.states().values()) == {"cancelled"}
    assert [inn.state(id) for id in (child_id, grandchild_id, step)] == ["cancelled"] * 3


def test_a_detached_child_goes_on_when_its_parent_is_cancelled(tmp_path: Path, clock: Clock) -> None:
    with lodge(tmp_path, clock) as inn:
        parent = inn.start()
        id = inn.asks(parent, inn.workflow("m:detached", detached=True))
        inn.turn()
        inn.withdraws(parent, id)
        inn.cancel("r", now=True)
        assert inn.states() == {"r": "cancelled", f"r/{id}": "running"}
    with lodge(tmp_path, clock) as inn:
        inn.turn()
        inn.finishes(inn.supervisor.ledger.runs[id])
        assert inn.states() == {"r": "cancelled", f"r/{id}": "completed"}


def test_a_parent_that_returns_waits_for_its_children_but_not_for_detached_ones(inn: Lodge) -> None:
    for name, told in (("waits", False), ("goes", True)):
        parent = inn.start(name)
        id = inn.asks(parent, inn.workflow(f"m:{name}", detached=told))
        inn.turn()
        inn.finishes(parent)
        assert inn.states()[name] == ("completed" if told else "running")
        inn.finishes(inn.supervisor.ledger.runs[id])
        assert inn.states()[name] == "completed"


def test_a_deep_family_ends_at_once(inn: Lodge) -> None:
    """Deeper than calls may be nested."""
    run = inn.start()
    for _ in range(500):
        id = inn.asks(run, inn.flow)
        run = inn.supervisor.ledger.runs[id]
        inn.supervisor.hosts.assign()
    inn.waits(run)
    inn.turn()
    assert done(inn.cancel("r", now=True)) == "run r is cancelled"
    assert inn.room.rows("SELECT state, count(*) FROM dq_run GROUP BY state") == [("cancelled", 501)]


def test_a_cancel_where_nobody_is_at_work_ends_the_whole_family(tmp_path: Path, clock: Clock) -> None:
    with lodge(tmp_path, clock) as inn:
        parent = inn.start()
        child_id = inn.asks(parent, inn.flow)
        inn.turn()
        function = inn.room.function()
        steps = [inn.asks(inn.supervisor.ledger.runs[child_id], function), inn.sleeps(parent, 10), child_id]
        inn.turn()
    with lodge(tmp_path, clock, workers=0) as inn:  # what `dq cancel` brings up where nobody is at work
        assert "asked to end" in done(inn.cancel("r"))
        assert set(inn.states().values()) == {"running"}
        assert done(inn.cancel("r")) == "run r is cancelled"
        assert set(inn.states().values()) == {"cancelled"}
        assert [inn.state(step) for step in steps] == ["cancelled"] * 3
    with lodge(tmp_path, clock) as inn:
        inn.turn(20)
        assert not inn.supervisor.ledger.runs


def test_a_child_that_ends_where_nobody_is_at_work_is_told_to_its_parent(tmp_path: Path, clock: Clock) -> None:
    with lodge(tmp_path, clock) as inn:
        parent = inn.start()
        id = inn.asks(parent, inn.flow)
        inn.turn()
    with lodge(tmp_path, clock, workers=0) as inn:
        inn.cancel(f"r/{id}", now=True)
        assert inn.room.rows("SELECT seq, state FROM dq_result") == [(1, "cancelled")]
    with lodge(tmp_path, clock) as inn:
        inn.turn()
        parent = inn.supervisor.ledger.by_name["r"]
        assert (parent.open, parent.seq) == (0, 1)


def test_a_run_is_told_when_its_time_is_up_also_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    with lodge(tmp_path, clock) as inn:
        inn.start("r", inn.workflow("m:brief", timeout=100 * SECOND))
        inn.turn(50)
        assert not inn.told()
    with lodge(tmp_path, clock) as inn:
        inn.turn(40)
        assert not inn.told()
        inn.turn(11)
        assert [row[4] for row in inn.told()] == [b"it has run out of time"]
        assert inn.room.rows("SELECT cancel_cause FROM dq_run") == [("it has run out of time",)]
        assert done(inn.cancel("r")) == "run r is cancelled", "to be out of time is a first cancel"


def test_a_blocked_run_whose_time_is_up_has_failed(tmp_path: Path, clock: Clock) -> None:
    """It is late and nobody has given it up: it ends as it would have ended if its code could have been told."""
    with lodge(tmp_path, clock) as inn:
        run = inn.start("r", inn.workflow("m:brief", timeout=100 * SECOND))
        step = inn.waits(run)
        inn.supervisor.hosts._block(inn.host, run.id, "the code has changed")
        inn.turn(101)
        assert (inn.states(), inn.state(step)) == ({"r": "failed"}, "cancelled")
        [(payload,)] = inn.room.rows("SELECT payload FROM dq_run")
        assert b"RunTimeout" in payload
        assert b"it has run out of time" in payload
