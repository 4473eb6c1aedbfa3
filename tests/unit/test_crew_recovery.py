"""What a successor makes of what it finds: who is charged, what runs again, and that its own evidence is written first."""

from __future__ import annotations

from pathlib import Path

import pytest

from dq.crew.committer import Committer
from dq.crew.results import PATIENCE, failure
from dq.errors import StepCrashed
from dq.executor.frames import Claim, Submit
from dq.executor.slots import SlotReader, SlotWriter, open_slots
from dq.model.states import RunState
from dq.store.store import Store
from tests.unit.crewroom import Guest, Hand, Room, open_room


def claimed(room: Room, count: int = 1, *, cost: int = 1000, max_crashes: int = 3) -> tuple[Hand, Claim]:
    function = room.function(cost=cost, max_crashes=max_crashes)
    hand = Hand(room, function, 3)
    Guest(room).submits(function, count)
    room.turn()
    [claim] = hand.claims()
    assert len(claim.rows) == count
    return hand, claim


def again(room: Room) -> Claim:
    """A worker of the successor, and what it is given."""
    hand = Hand(room, room.function(cost=1000), 4)
    room.turn()
    room.supervisor.committer.settle()
    [claim] = hand.claims()
    for index, row in enumerate(claim.rows):
        hand.slot.begin(index, row[0], claim.epoch)
    return claim


def test_what_was_begun_is_lost_and_not_charged(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        hand, claim = claimed(room, 4)
        ids = [row[0] for row in claim.rows]
        hand.finishes(claim, ids[0])
        room.supervisor.committer.settle()
        hand.slot.begin(0, ids[1], claim.epoch)
        hand.slot.finish(0)
        hand.slot.begin(1, ids[2], claim.epoch)
    with open_room(tmp_path) as room:
        attempts = room.rows("SELECT step, attempt, epoch, outcome, charged FROM dq_attempt")
        assert attempts == [(id, 1, claim.epoch, "lost", 0) for id in ids[1:3]]
        assert room.rows("SELECT count(*) FROM dq_claim") == [(0,)]
        assert room.supervisor.slots.identity(3).pid == 0
        assert not room.supervisor.ledger.wary
        assert [row[:2] for row in again(room).rows] == [(ids[1], 2), (ids[2], 2), (ids[3], 1)]


def test_a_step_that_is_there_at_every_death_is_found_in_the_end(tmp_path: Path) -> None:
    """Supervisors do not die by themselves that often: something that the step does must be the cause."""
    for boot in range(PATIENCE * 2 + 10):
        with open_room(tmp_path) as room:
            room.supervisor.committer.settle()
            if rows := room.rows("SELECT state, attempt FROM dq_result"):
                assert rows == [("dead", PATIENCE * 2 + 1)]
                break
            if not boot:
                hand, claim = claimed(room, max_crashes=2)
                hand.slot.begin(0, claim.rows[0][0], claim.epoch)
            else:
                again(room)
    else:
        raise AssertionError("it was never quarantined")
    with open_room(tmp_path) as room:
        assert room.rows("SELECT sum(charged), count(*) FROM dq_attempt") == [(2, PATIENCE * 2 + 1)]
        assert not room.supervisor.ledger.batches


def test_a_step_that_stops_the_machine_is_charged_from_the_second_time_on(tmp_path: Path) -> None:
    """The slots may say anything after a power cut, so whatever was claimed is a suspect, and is claimed with a sync."""
    with open_room(tmp_path, boot_id="boot-0") as room:
        _, claim = claimed(room, 2)
        ids = [row[0] for row in claim.rows]
    for boot in range(1, 4):
        with open_room(tmp_path, boot_id=f"boot-{boot}") as room:
            assert room.supervisor.ledger.wary == set(ids)
            charged = room.rows("SELECT charged, cause FROM dq_attempt WHERE step = 1 ORDER BY attempt")
            assert charged == [(0, "the machine stopped"), *[(1, "the machine stopped")] * (boot - 1)]
            again(room)
    with open_room(tmp_path, boot_id="boot-4") as room:
        assert room.rows("SELECT state FROM dq_result") == [("dead",)] * 2


def test_after_a_clean_stop_the_slots_say_nothing(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        hand, claim = claimed(room)
        hand.slot.begin(0, claim.rows[0][0], claim.epoch)
        room.supervisor._lost(hand.member, None)  # type: ignore[arg-type]
        room.supervisor.committer.settle()
        room.supervisor.store.close(clean=True)
    with open_room(tmp_path) as room:
        assert room.rows("SELECT outcome FROM dq_attempt") == [("crashed",)]


def test_the_evidence_is_on_disk_before_a_slot_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_room(tmp_path) as room:
        hand, claim = claimed(room)
        hand.slot.begin(0, claim.rows[0][0], claim.epoch)
    order: list[str] = []
    sync, clear = Store.sync, SlotReader.clear

    def noted_sync(store: Store) -> float:
        order.append("sync")
        return sync(store)

    def noted_clear(slots: SlotReader, slot: int) -> None:
        order.append(f"clear {slot}")
        clear(slots, slot)

    monkeypatch.setattr(Store, "sync", noted_sync)
    monkeypatch.setattr(SlotReader, "clear", noted_clear)
    with open_room(tmp_path):
        assert order[-2:] == ["sync", "clear 3"]


def test_a_successor_that_is_killed_in_the_middle_has_a_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had taken down of a claim is not taken down twice, and the rest is."""
    with open_room(tmp_path) as room:
        _, last_claim = claimed(room, 2, max_crashes=1)
    for _ in range(PATIENCE):
        with open_room(tmp_path) as room:
            last_claim = again(room)
    first, last = (row[0] for row in last_claim.rows)
    memory = open_slots(f"{tmp_path}/f.db.slots")
    SlotWriter(memory, 4).finish(0)  # so the first one is lost, and the last one has been there too often
    memory.close()

    def killed(committer: Committer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "settle", killed)
        with pytest.raises(KeyboardInterrupt), open_room(tmp_path):
            pass
    with open_room(tmp_path) as room:
        assert room.rows("SELECT step, state FROM dq_result") == [(last, "dead")]
        assert room.rows(f"SELECT count(*) FROM dq_attempt WHERE epoch = {last_claim.epoch}") == [(2,)]
        assert room.rows("SELECT count(*) FROM dq_claim") == [(0,)]
        assert [row[:2] for row in again(room).rows] == [(first, PATIENCE + 1)]


def test_batches_of_two_functions_go_to_their_own_lanes(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        one, two = room.function("m:one"), room.function("m:two")
        guest = Guest(room)
        first, _ = room.supervisor.clients._lease_to(guest.client)
        guest.client.functions.update({1: one, 2: two})
        guest.says(Submit([(first + n, 1 + n % 2, b"%d" % n) for n in range(10)]))
        room.supervisor.committer.settle()
    with open_room(tmp_path) as room:
        [batch] = room.supervisor.ledger.batches.values()
        assert batch.remaining == 10
        hand = Hand(room, room.function("m:one", cost=1000), 0)
        room.function("m:two", cost=1000)
        room.turn()
        claims = hand.claims()
        got = {row[0]: row[3] for claim in claims for row in claim.rows}
        assert got == {first + n: b"%d" % n for n in range(10)}
        assert all(len({row[2] for row in claim.rows}) == 1 for claim in claims)
        for claim in claims:
            hand.finishes(claim)
        assert room.rows("SELECT count(*) FROM dq_batch") == [(0,)]


def test_runs_are_taken_up_where_they_are(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        ledger, workflow = room.supervisor.ledger, room.function("m:w")
        first, _ = ledger.lease()
        runs = [ledger.start(first + n, f"run-{n}", workflow, b"", b"") for n in range(3)]
        ledger.change(runs[1], RunState.BLOCKED, reason="why")
        ledger.change(runs[2], RunState.FAILED, failure(StepCrashed("x")))
        group, function = room.supervisor.committer.group, room.function("m:f")
        group.flow_steps += [(first + 10 + n, first, function.id, "", n, b"", b"%d" % n, 0) for n in range(4)]
        room.supervisor.committer.commit()
        room.supervisor.committer.group.results.append((first + 10, 1, "completed", 1, 0, 0, 0, 0, b"r"))
        room.supervisor.committer.dirty = True
        room.supervisor.committer.settle()
    with open_room(tmp_path) as room:
        runs = list(room.supervisor.ledger.runs.values())
        assert [(run.name, run.state, run.reason) for run in runs] == [
            ("run-0", "running", ""), ("run-1", "blocked", "why")
        ]  # fmt: skip
        assert (runs[0].seq, runs[0].open) == (1, 3)
        hand = Hand(room, room.function("m:f", cost=1000), 0)
        room.turn()
        [claim] = hand.claims()
        assert [(row[0], row[3]) for row in claim.rows] == [(first + 10 + n, b"%d" % n) for n in range(1, 4)]
        hand.finishes(claim)
        assert room.rows("SELECT seq FROM dq_result ORDER BY step") == [(1,), (2,), (3,), (4,)]
        assert runs[0].open == 0
