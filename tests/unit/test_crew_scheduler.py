"""Who gets which steps, and when: long ones one at a time, short ones ahead, and never one step twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.crew import scheduler as module
from dq.crew.scheduler import CLAIM_ROWS, HOLD_ROWS, STUCK
from dq.executor.frames import Adopt, Cancel, CancelDone, GaveBack, Results
from tests.unit.crewroom import Guest, Hand, Room, open_room

SHORT, LONG = 1_000, 50_000_000  # nanoseconds


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with open_room(tmp_path) as room:
        yield room


@pytest.mark.parametrize("cost", [-1, LONG], ids=["unknown", "long"])
def test_what_is_long_or_unknown_is_claimed_one_at_a_time(room: Room, cost: int) -> None:
    function = room.function(cost=cost)
    hands = [Hand(room, function, number) for number in range(2)]
    ids = Guest(room).submits(function, 50)
    room.turn()
    assert [hand.ids() for hand in hands] == [ids[:1], ids[1:2]]
    room.turn()
    assert [hand.ids() for hand in hands] == [[], []], "and nothing ahead, however often it looks"
    assert room.supervisor.scheduler.claimed == 2


def test_short_ones_are_claimed_ahead_as_many_as_fit(room: Room) -> None:
    function = room.function(cost=SHORT)
    hand = Hand(room, function, 0)
    ids = Guest(room).submits(function, 2000)
    room.turn()
    claims = hand.claims()
    got = [row[0] for claim in claims for row in claim.rows]
    assert got == ids[: len(got)]
    assert CLAIM_ROWS <= len(got) <= HOLD_ROWS
    assert max(len(claim.rows) for claim in claims) <= CLAIM_ROWS
    assert room.rows("SELECT count(*) FROM dq_steps WHERE state = 'claimed'") == [(len(got),)]


def test_the_estimate_follows_what_is_measured(room: Room) -> None:
    function = room.function()
    hand = Hand(room, function, 0)
    Guest(room).submits(function, 1000)
    room.turn()
    for _ in range(3):
        [claim] = hand.claims()
        assert len(claim.rows) == 1
        hand.finishes(claim, busy=LONG)
        room.turn()
    assert function.cost == LONG
    [claim] = hand.claims()
    hand.finishes(claim, busy=0)
    assert function.cost == LONG - LONG // 4


def test_members_share_what_is_there(room: Room) -> None:
    function = room.function(cost=SHORT)
    hands = [Hand(room, function, number) for number in range(3)]
    ids = Guest(room).submits(function, 30)
    room.turn()
    got = [hand.ids() for hand in hands]
    assert sorted(id for part in got for id in part) == ids
    assert max(map(len, got)) <= 15, "nobody takes it all while others are there"


def test_owners_take_turns(room: Room) -> None:
    function = room.function(cost=LONG)
    hand = Hand(room, function, 0)
    flood, drop = Guest(room), Guest(room)
    flood.submits(function, 1000)
    [mine] = drop.submits(function, 1)
    room.turn()
    [first] = hand.claims()
    hand.finishes(first, busy=LONG)
    room.turn()
    assert hand.ids() == [mine]


def test_who_does_not_read_its_results_waits_and_others_do_not(room: Room) -> None:
    function = room.function(cost=LONG)
    hand = Hand(room, function, 0)
    deaf, other = Guest(room), Guest(room)
    deaf.submits(function, 10)
    [wanted] = other.submits(function, 1)
    deaf.peer.out_bytes = module.OUT_MAX + 1
    room.turn()
    [claim] = hand.claims()
    assert [row[0] for row in claim.rows] == [wanted]
    hand.finishes(claim)
    room.turn()
    assert hand.claims() == []
    deaf.peer.out_bytes = 0
    room.turn()
    assert len(hand.claims()) == 1


def test_one_claim_holds_one_function_and_not_too_many_bytes(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLAIM_BYTES", 1000)
    one, two = room.function("m:one", cost=SHORT), room.function("m:two", cost=SHORT)
    hand, guest = Hand(room, one, 0), Guest(room)
    guest.submits(one, 5, b"x" * 300)
    guest.submits(two, 2)
    guest.submits(one, 1, b"x" * 5000)
    room.turn()
    claims = [(claim.rows[0][2], len(claim.rows)) for claim in hand.claims()]
    assert claims == [(one.id, 3), (one.id, 2), (two.id, 2), (one.id, 1)]


def test_nothing_is_handed_out_while_it_drains(room: Room) -> None:
    function = room.function()
    hand = Hand(room, function, 0)
    Guest(room).submits(function, 3)
    room.supervisor.scheduler.draining = True
    room.turn()
    assert hand.claims() == []


def stuck(room: Room, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes, and nothing comes from the member."""
    hand.member.busy_since -= STUCK
    room.turn()
    monkeypatch.undo()


def test_what_a_stuck_member_has_not_begun_is_given_back(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = room.function("m:long", cost=SHORT), room.function("m:short", cost=SHORT)
    hand, guest = Hand(room, long, 0), Guest(room)
    [begun] = guest.submits(long, 1)
    ids = guest.submits(short, 20)
    room.turn()
    first, second = hand.claims()
    assert not hand.is_asked_back()
    stuck(room, hand, monkeypatch)
    assert hand.is_asked_back()
    room.turn()
    assert not hand.is_asked_back(), "it is asked once"
    room.supervisor.scheduler.gave_back(hand.member, [(second.epoch, id) for id in ids])
    assert short.cost == SHORT, "a step that has waited is not held to be long"
    assert long.cost >= STUCK * 1e9
    room.turn()
    assert hand.claims() == [], "it gets nothing while it is stuck"
    assert room.rows("SELECT step FROM dq_attempts WHERE outcome IS NULL") == [(begun,)]
    other = Hand(room, short, 1)
    room.turn()
    assert other.ids() == ids, "in their order, and before others"
    hand.finishes(second)
    assert room.supervisor.scheduler.stale == len(ids), "too late: somebody else has them"
    hand.finishes(first)
    assert room.rows("SELECT step FROM dq_result") == [(begun,)]


def test_a_claim_that_is_given_back_in_part_is_trimmed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    function = room.function(cost=SHORT)
    hand, guest = Hand(room, function, 0), Guest(room)
    ids = guest.submits(function, 10)
    room.turn()
    [claim] = hand.claims()
    stuck(room, hand, monkeypatch)
    room.supervisor.scheduler.gave_back(hand.member, [(claim.epoch, id) for id in ids[4:]])
    assert room.rows("SELECT steps FROM dq_claim") == [(str([[id, 1] for id in ids[:4]]).replace(" ", ""),)]
    hand.finishes(claim)
    assert room.rows("SELECT step FROM dq_result") == [(id,) for id in ids[:4]]
    room.turn()
    assert hand.ids() == ids[4:5], "they are known to be long now"


def test_what_the_member_was_asked_for_may_be_done_already(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    function = room.function(cost=SHORT)
    hand, guest = Hand(room, function, 0), Guest(room)
    guest.submits(function, 10)
    room.turn()
    [claim] = hand.claims()
    stuck(room, hand, monkeypatch)
    hand.finishes(claim)
    room.supervisor.scheduler.gave_back(hand.member, [])
    room.supervisor.scheduler.gave_back(hand.member, [(claim.epoch, 1), (99, 1)])
    assert not hand.member.revoked
    assert room.supervisor.scheduler.claimed == hand.member.outstanding == hand.member.load == 0


def test_a_claim_leaves_when_its_row_is_in_the_log(room: Room) -> None:
    function = room.function()
    hand = Hand(room, function, 0)
    Guest(room).submits(function, 1)
    room.supervisor.scheduler.dispatch()
    assert hand.claims() == []
    room.supervisor.committer._write()
    assert hand.claims() == []
    room.supervisor.committer.dirty = True
    room.supervisor.committer.commit()
    assert len(hand.claims()) == 1


def test_after_a_stop_of_the_machine_a_claim_leaves_when_its_row_is_on_disk(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = room.function()
    hand = Hand(room, function, 0)
    room.supervisor.ledger.wary.update(Guest(room).submits(function, 1))
    order: list[str] = []
    sync = room.supervisor.store.sync

    def noted() -> float:
        order.append(f"synced, {len(hand.claims())} claims out")
        return sync()

    monkeypatch.setattr(room.supervisor.store, "sync", noted)
    room.turn()
    order.append(f"then {len(hand.claims())}")
    assert order == ["synced, 0 claims out", "then 1"]


def test_when_memory_is_full_rows_wait_in_the_file(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOADED_ROWS", 10)
    monkeypatch.setattr(module, "CHUNK", 7)
    functions = [room.function("m:one", cost=SHORT), room.function("m:two", cost=SHORT)]
    hand, guest = Hand(room, functions[0], 0), Guest(room)
    ids = [id for round in range(8) for id in guest.submits(functions[round % 2], 30)]
    scheduler = room.supervisor.scheduler
    assert scheduler._loaded_rows == 30
    got: list[int] = []
    while len(got) < len(ids):
        room.turn()
        claims = hand.claims()
        assert claims
        for claim in claims:
            got += [row[0] for row in claim.rows]
            hand.finishes(claim)
    assert got == ids
    assert room.rows("SELECT count(*) FROM dq_result WHERE attempt = 1") == [(240,)]
    assert scheduler._loaded_rows == scheduler._loaded_bytes == scheduler.claimed == 0


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in the file"])
def test_cancelled_steps_are_never_claimed(room: Room, monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    if stored:
        monkeypatch.setattr(module, "LOADED_ROWS", 0)
        monkeypatch.setattr(module, "CHUNK", 3)
    function = room.function(cost=LONG)
    hand, guest, other = Hand(room, function, 0), Guest(room), Guest(room)
    ids = guest.submits(function, 10)
    [theirs] = other.submits(function, 1)
    room.turn()
    [first] = hand.claims()
    guest.says(Cancel(7, [*ids[:6], theirs, 10**9]))
    room.supervisor.committer.settle()
    assert guest.hears(CancelDone) == [CancelDone(7, ids[1:6])]
    claims, got = [first], list[int]()
    while claims:
        hand.finishes(claims[0])
        room.turn()
        claims = hand.claims()
        got += [row[0] for claim in claims for row in claim.rows]
    assert sorted(got) == [*ids[6:], theirs]
    assert room.rows("SELECT count(*) FROM dq_result WHERE state = 'cancelled'") == [(5,)]
    assert room.rows("SELECT count(*) FROM dq_batch") == [(0,)]


def test_nothing_to_cancel(room: Room) -> None:
    guest = Guest(room)
    guest.says(Cancel(1, []))
    guest.says(Cancel(2, [5]))
    room.supervisor.committer.settle()
    assert guest.hears(CancelDone) == [CancelDone(1, []), CancelDone(2, [])]


def test_steps_of_an_earlier_supervisor_can_be_cancelled(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        ids = Guest(room).submits(room.function(), 5)
        room.supervisor.committer.settle()
    with open_room(tmp_path) as room:
        guest, function = Guest(room), room.function()
        guest.says(Adopt(ids, []))
        guest.says(Cancel(1, ids[1:]))
        room.supervisor.committer.settle()
        assert guest.hears(CancelDone) == [CancelDone(1, ids[1:])]
        hand = Hand(room, function, 0)
        room.turn()
        [claim] = hand.claims()
        assert [row[0] for row in claim.rows] == ids[:1]
        hand.finishes(claim)
        room.supervisor.committer.settle()
        assert [message.rows[0][0] for message in guest.hears(Results)] == ids[:1]
        assert room.rows("SELECT count(*) FROM dq_batch") == [(0,)]


def test_a_given_back_frame_decodes_as_what_the_scheduler_takes(room: Room) -> None:
    function = room.function(cost=SHORT)
    hand, guest = Hand(room, function, 0), Guest(room)
    ids = guest.submits(function, 3)
    room.turn()
    [claim] = hand.claims()
    hand.control.send(GaveBack([(claim.epoch, id) for id in ids]))
    room.supervisor._on_control(hand.member, 1)
    assert room.supervisor.scheduler.claimed == 0
    room.turn()
    assert hand.ids() == ids
