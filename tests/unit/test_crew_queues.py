"""Limits hold at every moment, whoever dies; what has a higher priority goes first; a pause is a pause."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.crew import scheduler as module
from dq.executor.frames import Cancel, CancelDone, ListQueues, QueueStates, Results, SetQueue
from dq.flow.queue import Queue
from tests.unit.crewroom import Guest, Hand, Room, open_room
from tests.unit.queueroom import Gang, Watch, step, submits

SHORT, LONG = 1_000, 50_000_000  # nanoseconds
AS_IT_IS = (-1, -1, -1, -1)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def room(tmp_path: Path, watch: Watch) -> Iterator[Room]:
    with open_room(tmp_path, workers=4, clock=watch) as room:
        yield room


@pytest.mark.parametrize("cost", [-1, SHORT, LONG], ids=["unknown", "short", "long"])
def test_no_more_run_at_once_than_may(room: Room, cost: int) -> None:
    function = step(room, Queue("q", concurrency=2), cost=cost)
    gang = Gang(room, function, 4)
    ids = submits(Guest(room), function, *[{}] * 20)
    assert gang.turn() == ids[:2]
    assert gang.turn() == []
    gang.finishes(ids[0])
    assert gang.turn() == [ids[2]]
    assert ids[3:] == gang.drain(2)
    assert room.rows("SELECT count(*) FROM dq_result") == [(20,)]
    assert not room.supervisor.queues.by_name["q"].gates, "nothing is kept of what is over"
    assert all(lane.pending == 0 for lane in room.supervisor.scheduler.lanes.values())


def test_the_limit_holds_for_all_steps_of_the_queue_and_for_all_who_ask(room: Room) -> None:
    queue = Queue("q", concurrency=3)
    one, two = step(room, queue, "m:one"), step(room, queue, "m:two")
    gang = Gang(room, one, 4)
    ids = [id for _ in range(3) for function in (one, two) for id in submits(Guest(room), function, {}, {})]
    assert sorted(gang.drain(3)) == ids


@pytest.mark.parametrize("priority", [0, 1])
def test_lanes_take_turns_at_a_queue_unless_one_has_the_higher_priority(room: Room, priority: int) -> None:
    queue = Queue("q", concurrency=1)
    one, two = step(room, queue, cost=LONG), step(room, queue, cost=LONG, folder="/elsewhere")
    assert room.supervisor.scheduler.lane(one) is not room.supervisor.scheduler.lane(two)
    gang = Gang(room, one, 1, two)
    flood = submits(Guest(room), one, *[{}] * 20)
    assert gang.turn() == flood[:1]
    few = submits(Guest(room), two, *[{"priority": priority}] * 3)
    order = gang.drain_one_by_one()
    assert order[:6] == (
        [flood[1], few[0], flood[2], few[1], flood[3], few[2]] if not priority else [*few, *flood[1:4]]
    )
    assert sorted(order) == sorted([*few, *flood[1:]])


def test_a_lane_goes_on_when_the_one_that_it_lets_go_first_takes_nothing(room: Room) -> None:
    queue = Queue("q", concurrency=4, per_worker=1)
    one, two = step(room, queue, cost=LONG), step(room, queue, cost=LONG, folder="/elsewhere")
    room.supervisor.scheduler.pools["cpu"].slots = 2
    gang = Gang(room, one, 1, two)
    first, second = submits(Guest(room), two, {"priority": 7}, {"priority": 7})
    assert gang.turn() == [first]
    [mine] = submits(Guest(room), one, {})
    assert gang.turn() == [mine], "the other worker has room, but not for another one of this queue"
    gang.finishes(first)
    assert gang.turn() == [second]


def test_with_a_key_the_limit_holds_for_each_key(room: Room) -> None:
    function = step(room, Queue("q", concurrency=1, key=str))
    gang = Gang(room, function, 4)
    a1, a2, b1, b2, b3 = submits(Guest(room), function, *[{"key": key} for key in "aabbb"])
    assert sorted(gang.turn()) == [a1, b1]
    gang.finishes(b1)
    assert gang.turn() == [b2]
    gang.finishes(b2, a1)
    assert sorted(gang.turn()) == [a2, b3]


def test_a_worker_holds_no_more_than_it_may(room: Room) -> None:
    room.supervisor.scheduler.pools["cpu"].slots = 8
    function = step(room, Queue("q", per_worker=2), cost=LONG)
    gang = Gang(room, function, 2)
    ids = submits(Guest(room), function, *[{}] * 9)
    assert sorted(gang.turn()) == ids[:4]
    assert [hand.member.outstanding for hand in gang.hands] == [2, 2]
    other = step(room, name="m:plain", cost=LONG)
    plain = submits(Guest(room), other, {}, {})
    assert sorted(gang.turn()) == plain, "the others find a place beside them"
    gang.finishes(ids[0])
    assert gang.turn() == [ids[4]]


def test_no_more_begin_within_the_time_than_may(room: Room, watch: Watch) -> None:
    function = step(room, Queue("q", rate=(3, 10)), cost=LONG)
    gang = Gang(room, function, 4)
    ids = submits(Guest(room), function, *[{}] * 8)
    assert gang.turn() == ids[:3]
    gang.finishes(*ids[:2])
    watch.passes(room, 4)
    assert gang.turn() == []
    watch.passes(room, 6)
    gang.finishes(ids[2])
    assert gang.turn() == [], "exactly ten seconds are within"
    watch.passes(room, 0.000001)
    assert gang.turn() == ids[3:6]
    watch.passes(room, 10.1)
    assert gang.turn() == [ids[6]], "those that run have no free worker for more"
    gang.finishes(*ids[3:6])
    watch.passes(room, 5)
    assert gang.turn() == [ids[7]]
    assert room.rows("SELECT step FROM dq_begin ORDER BY at") == [(ids[6],), (ids[7],)]


def test_a_rate_looks_back_from_where_a_body_began(room: Room, watch: Watch) -> None:
    function = step(room, Queue("q", rate=(1, 10)), cost=LONG)
    gang = Gang(room, function, 1)
    first, second = submits(Guest(room), function, {}, {})
    assert gang.turn() == [first]
    watch.passes(room, 3)
    hand, claim = gang.open.pop(first)
    began = watch.micros - 1_000_000
    room.supervisor.results.take(hand.member, Results(claim.epoch, [(first, 0, b"result", began, 1000)]))
    watch.passes(room, 8.5)
    assert gang.turn() == [], "it is late only that it has begun"
    watch.passes(room, 1)
    assert gang.turn() == [second]


def test_a_rate_outlives_its_supervisor(tmp_path: Path, watch: Watch) -> None:
    queue = Queue("q", rate=(2, 60))
    with open_room(tmp_path, clock=watch) as room:
        function = step(room, queue, cost=LONG)
        gang = Gang(room, function, 2)
        ids = submits(Guest(room), function, *[{}] * 5)
        assert gang.turn() == ids[:2]
        gang.finishes(ids[0])
        room.supervisor.committer.settle()
    watch.micros += 30_000_000
    with open_room(tmp_path, clock=watch) as room:
        gang = Gang(room, step(room, queue, cost=LONG), 2)
        assert gang.turn() == [], "two have begun, half a minute ago"
        watch.passes(room, 30.1)
        assert gang.turn() == ids[1:3], "what was lost begins again, and counts again"
        assert room.rows("SELECT count(*) FROM dq_begin") == [(2,)]


def test_a_higher_priority_goes_first_whenever_it_comes(room: Room) -> None:
    function = step(room, Queue("q", concurrency=1))
    gang, guest = Gang(room, function, 2), Guest(room)
    low = submits(guest, function, *[{"priority": -1}] * 2)
    plain = submits(guest, function, *[{}] * 2)
    assert gang.turn() == [plain[0]]
    high = submits(guest, function, {"priority": 5}, {"priority": 9})
    gang.finishes(plain[0])
    assert gang.drain(1) == [high[1], high[0], plain[1], *low]


def test_priorities_without_a_queue_order_what_waits_for_the_same_workers(room: Room) -> None:
    function = step(room, cost=LONG)
    gang, guest = Gang(room, function, 1), Guest(room)
    plain = submits(guest, function, {}, {})
    low = submits(guest, function, {"priority": -2})
    mixed = submits(guest, function, {"priority": 1}, {}, {"priority": 2})
    assert gang.drain(1) == [mixed[2], mixed[0], *plain, mixed[1], *low]


def test_owners_take_turns_within_a_priority(room: Room) -> None:
    function = step(room, cost=LONG)
    gang = Gang(room, function, 1)
    flood = submits(Guest(room), function, *[{"priority": 3}] * 50)
    [lone] = submits(Guest(room), function, {"priority": 3})
    assert lone in gang.drain(1)[:3]
    assert flood


def test_a_queue_and_what_has_none_take_turns(room: Room) -> None:
    limited, plain = step(room, Queue("q", concurrency=4), cost=LONG), step(room, name="m:plain", cost=LONG)
    gang = Gang(room, plain, 1)
    many = submits(Guest(room), limited, *[{}] * 20)
    [lone] = submits(Guest(room), plain, {})
    assert lone in gang.drain(4)[:2]
    others = submits(Guest(room), plain, *[{}] * 20)
    [lone] = submits(Guest(room), limited, {})
    assert lone in gang.drain(4)[:2]
    assert many
    assert others


def test_an_unknown_step_finds_a_worker_behind_a_flood_of_short_ones(room: Room) -> None:
    """Nobody knows how long it takes, so it waits for a worker that is free; and one is kept for it."""
    short, lone = step(room, name="m:short", cost=SHORT), step(room, name="m:lone")
    hand = Hand(room, short, 0)
    submits(Guest(room), short, *[{}] * 5000)
    room.turn()
    [id] = submits(Guest(room), lone, {})
    for _ in range(6):
        claims = hand.claims()
        if any(row[0] == id for claim in claims for row in claim.rows):
            break
        for claim in claims:
            hand.finishes(claim)
            room.turn()
    else:
        raise AssertionError("it was never given out")


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in the file"])
def test_a_dead_worker_frees_its_places(room: Room, monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    if stored:
        monkeypatch.setattr(module, "LOADED_ROWS", 0)
    function = step(room, Queue("q", concurrency=2), cost=LONG)
    gang = Gang(room, function, 4)
    ids = submits(Guest(room), function, *[{"priority": n % 3} for n in range(12)])
    begun = gang.turn()
    assert len(begun) == 2
    assert gang.turn() == []
    dead = gang.open[begun[0]][0]
    gang.dies(dead)
    assert gang.turn() == begun[:1], "it comes first again, and in the place that it had"
    assert sorted(begun[1:] + gang.drain(2)) == sorted(set(ids) - set(begun[:1]))
    assert room.rows("SELECT count(*) FROM dq_result") == [(12,)]


def test_what_is_given_back_frees_its_places(room: Room) -> None:
    room.supervisor.scheduler.pools["cpu"].slots = 8
    function = step(room, Queue("q", concurrency=4), cost=LONG)
    gang = Gang(room, function, 1)
    ids = submits(Guest(room), function, *[{}] * 6)
    assert gang.turn() == ids[:4]
    hand, claim = gang.open[ids[0]]
    room.supervisor.scheduler.gave_back(hand.member, [(claim.epoch, id) for id in ids[2:4]])
    for id in ids[2:4]:
        del gang.open[id]
    assert gang.drain(4) == ids[2:]


@pytest.mark.parametrize("kills", [0, 1, 3])
def test_the_limit_holds_over_a_killed_supervisor(tmp_path: Path, watch: Watch, kills: int) -> None:
    queue = Queue("q", concurrency=2)
    with open_room(tmp_path, workers=4, clock=watch) as room:
        function = step(room, queue, cost=LONG)
        gang = Gang(room, function, 4)
        ids = submits(Guest(room), function, *[{"priority": n % 2, "key": ""} for n in range(10)])
        assert gang.turn() == ids[1:4:2]
        gang.finishes(ids[1])
        gang.turn()
        room.supervisor.committer.settle()
    for _ in range(kills):
        with open_room(tmp_path, workers=4, clock=watch) as room:
            assert len(Gang(room, step(room, queue, cost=LONG), 4).turn()) == 2
    with open_room(tmp_path, workers=4, clock=watch) as room:
        gang = Gang(room, step(room, queue, cost=LONG), 4)
        order = gang.drain(2)
        assert order == [*ids[3::2], *ids[::2]], "priorities are remembered"
        assert room.rows("SELECT count(*) FROM dq_result") == [(10,)]


def test_a_paused_queue_waits_also_in_the_next_supervisor(tmp_path: Path, watch: Watch) -> None:
    queue = Queue("q", concurrency=4)
    with open_room(tmp_path, clock=watch) as room:
        function = step(room, queue, cost=LONG)
        gang, guest = Gang(room, function, 2), Guest(room)
        ids = submits(guest, function, *[{}] * 4)
        assert gang.turn() == ids[:2]
        guest.says(SetQueue(1, "q", 1, AS_IT_IS))
        gang.finishes(*ids[:2])
        assert gang.turn() == []
        lane = room.supervisor.scheduler.lane(function)
        assert lane is not None
        assert lane.pending == 0, "no worker is kept for what is paused"
        room.supervisor.committer.settle()
    with open_room(tmp_path, clock=watch) as room:
        gang, guest = Gang(room, step(room, queue, cost=LONG), 2), Guest(room)
        assert gang.turn() == []
        guest.says(SetQueue(1, "q", 0, AS_IT_IS))
        guest.says(SetQueue(1, "q", 0, AS_IT_IS))
        assert gang.turn() == ids[2:]


def test_limits_that_are_set_by_hand_go_before_those_of_the_code(tmp_path: Path, watch: Watch) -> None:
    with open_room(tmp_path, workers=4, clock=watch) as room:
        function = step(room, Queue("q", concurrency=1), cost=LONG)
        gang, guest = Gang(room, function, 4), Guest(room)
        ids = submits(guest, function, *[{}] * 12)
        assert gang.turn() == ids[:1]
        guest.says(SetQueue(1, "q", -1, (3, -1, -1, -1)))
        assert gang.turn() == ids[1:3]
        room.supervisor.committer.settle()
    with open_room(tmp_path, workers=4, clock=watch) as room:
        function = step(room, Queue("q", concurrency=2), cost=LONG)
        gang, guest = Gang(room, function, 4), Guest(room)
        assert len(gang.turn()) == 3
        guest.says(SetQueue(1, "q", -1, AS_IT_IS, default=True))
        gang.finishes(*list(gang.open)[:1])
        assert gang.turn() == []
        gang.finishes(*list(gang.open)[:1])
        assert len(gang.turn()) == 1
        assert room.rows("SELECT concurrency, overridden FROM dq_queue") == [(2, 0)]


def test_another_definition_is_told_once_and_counts(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    monkeypatch.setattr(room.supervisor, "notice", notices.append)
    one = step(room, Queue("q", concurrency=1), cost=LONG)
    two = step(room, Queue("q", concurrency=3), "m:g", cost=LONG)
    step(room, Queue("q", concurrency=1), cost=LONG)
    step(room, Queue("q", concurrency=3), "m:g", cost=LONG)
    [notice] = notices
    assert "'q'" in notice
    assert "concurrency 3" in notice
    assert "concurrency 1" in notice
    gang = Gang(room, one, 4)
    submits(Guest(room), two, *[{}] * 5)
    assert len(gang.turn()) == 3


def test_what_waits_in_the_file_is_neither_lost_nor_run_twice(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOADED_ROWS", 4)
    monkeypatch.setattr(module, "CHUNK", 3)
    function = step(room, Queue("q", concurrency=2, key=str), cost=LONG)
    gang, guest = Gang(room, function, 4), Guest(room)
    ids = [id for _ in range(3) for id in submits(guest, function, *[{}] * 9)]
    ids += submits(guest, function, *[{"key": "ab"[n % 2], "priority": n % 2} for n in range(9)])
    assert room.supervisor.scheduler._loaded_rows < 20
    assert sorted(gang.drain(6)) == ids
    assert room.supervisor.scheduler._loaded_rows == room.supervisor.scheduler._loaded_bytes == 0


def test_cancelled_steps_leave_their_queue(room: Room) -> None:
    function = step(room, Queue("q", concurrency=1), cost=LONG)
    gang, guest = Gang(room, function, 2), Guest(room)
    ids = submits(guest, function, {}, {"priority": 1}, {}, {"after": 60_000_000}, {})
    assert gang.turn() == [ids[1]]
    guest.says(Cancel(7, [ids[0], ids[2], ids[3]]))
    room.supervisor.committer.settle()
    [done] = guest.hears(CancelDone)
    assert sorted(done.steps) == [ids[0], ids[2], ids[3]]
    assert gang.drain(1) == [ids[4]]
    assert room.rows("SELECT count(*) FROM dq_result WHERE state = 'cancelled'") == [(3,)]


def test_how_a_queue_stands(room: Room, watch: Watch) -> None:
    function = step(room, Queue("q", concurrency=1, rate=(5, 60)), cost=LONG)
    gang, guest = Gang(room, function, 2), Guest(room)
    asked = watch.micros
    submits(guest, function, *[{}] * 3)
    gang.turn()
    watch.passes(room, 5)
    submits(guest, function, {})
    guest.says(ListQueues(1, ""))
    room.supervisor.committer.settle()
    [answer] = guest.hears(QueueStates)
    [state] = answer.rows
    assert (state.name, state.waiting, state.running, state.paused, state.by_hand) == ("q", 3, 1, False, False)
    assert state.limits == (1, 0, 5, 60_000_000)
    assert state.oldest_at == asked
