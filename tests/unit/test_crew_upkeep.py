"""What a supervisor tidies up: what ended long ago, and side files that nobody refers to."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dq.crew import chores as chores_module
from dq.crew import janitor, upkeep
from dq.crew.upkeep import Tally, Upkeep, Wish
from dq.crew.withdrawals import withdraw
from dq.errors import DiskFull
from dq.executor import blobs
from dq.executor.frames import Adopt, Refused, Resubmit, Results, Sweep, Swept
from dq.model.clock import SystemClock
from dq.model.payload import FILE, seal
from dq.model.states import COMPLETED, FAILED, RunState
from dq.store.purges import STEP, Kind
from tests.unit.crewroom import Guest, Hand, Room, open_room
from tests.waiting import wait_until

HOUR = 3_600_000_000  # microseconds
NOW = Wish(0)  # all that has ended


class Watch(SystemClock):
    """A clock that the test sets, in microseconds from now."""

    def __init__(self) -> None:
        self.ahead = 0

    def now(self) -> int:
        return time.time_ns() // 1000 + self.ahead


def keeper(room: Room, *, old: bool = True) -> Upkeep:
    """The upkeep of a supervisor that has been there for a while, or has just begun."""
    made = Upkeep(room.supervisor, room.supervisor.clients)
    made._born -= 1000.0 if old else 0.0
    return made


def run(room: Room, tidying: Upkeep) -> None:
    """Turns of the loop until the chores are done."""

    def turn() -> bool:
        room.supervisor.timers.run(time.monotonic())
        room.supervisor.committer.settle()
        return not len(tidying.chores)

    wait_until(turn)


def sweep(room: Room, wish: Wish = NOW, *, old: bool = True) -> Tally:
    made, tally = keeper(room, old=old), Tally()
    room.supervisor.committer.settle()
    made.chores.add(made.sweep(wish, tally))
    run(room, made)
    return tally


def done(room: Room, count: int, payload: bytes = b"args") -> list[int]:
    """Steps submitted alone that have ended, with a result."""
    guest = Guest(room)
    ids = guest.submits(room.function(cost=1000), count, payload)
    end(room, guest, ids, COMPLETED)
    return ids


def end(room: Room, guest: Guest, ids: list[int], status: int) -> None:
    """Ends steps that nobody has claimed."""
    taken = withdraw(room.supervisor, guest.peer, set(ids))
    assert len(taken) == len(ids)
    for row, batch in taken:
        room.supervisor.results.settle([row], batch, status, b"result")
    room.supervisor.committer.settle()


def side_file(room: Room, name: str, *, age: float = 0.0) -> bytes:
    """A side file of that age in seconds; returns the payload that names it."""
    body = blobs.write(f"{room.db}.blobs", name, b"data", [])
    path = blobs.path_of(f"{room.db}.blobs", blobs.reference(body).name)
    os.utime(path, (time.time() - age, time.time() - age))
    return seal(FILE, body)


def files(room: Room) -> set[str]:
    """The owners of the side files that are there: what their names begin with."""
    return {file.name.rpartition("-")[0] for file in janitor.listing(f"{room.db}.blobs")}


def test_what_has_ended_goes_and_what_has_not_stays(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        ids = done(room, 5)
        function = room.function("m:other")
        waiting = Guest(room).submits(function, 3)
        room.supervisor.committer.settle()
        tally = sweep(room)
        assert (tally.steps, tally.runs) == (5, 0)
        assert [row[0] for row in room.rows("SELECT id FROM dq_step ORDER BY id")] == waiting
        assert not set(ids) & set(waiting)
        hand = Hand(room, function, 9)
        room.turn()
        assert hand.ids()


def test_how_long_ago_counts_from_the_end(tmp_path: Path) -> None:
    clock = Watch()
    with open_room(tmp_path, clock=clock) as room:
        early = done(room, 2)
        clock.ahead = HOUR
        guest = Guest(room)
        late = guest.submits(room.function("m:late"), 1)
        end(room, guest, late, FAILED)
        assert sweep(room, Wish(HOUR // 2, dry_run=True)).steps == 2
        assert room.rows("SELECT count(*) FROM dq_step") == [(3,)]
        assert sweep(room, Wish(HOUR // 2, keep_failed=True)).steps == 2
        assert sweep(room, Wish(0, keep_failed=True)).steps == 0
        assert [row[0] for row in room.rows("SELECT id FROM dq_step")] == late != early


def test_a_tree_of_runs_stays_while_somebody_above_is_unfinished(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        ledger = room.supervisor.ledger
        first, _ = ledger.lease()
        top = ledger.start(first, "top", room.function(), b"p", b"f" * 16)
        child = ledger.start(first + 1, "top/1", room.function(), b"p", b"f" * 16, top)
        grandchild = ledger.start(first + 2, "top/2", room.function(), b"p", b"f" * 16, child)
        room.supervisor.committer.settle()
        for each in (grandchild, child):
            ledger.change(each, RunState.COMPLETED, b"p")
            room.supervisor.committer.settle()
        assert sweep(room).runs == 0
        ledger.change(top, RunState.COMPLETED, b"p")
        assert sweep(room).runs == 3
        assert room.rows("SELECT count(*) FROM dq_run") == [(0,)]


def test_a_supervisor_that_has_just_begun_keeps_what_has_just_ended(tmp_path: Path) -> None:
    """Clients of the one before send again what they have no answer to; it must not be done again."""
    with open_room(tmp_path) as room:
        [id] = done(room, 1)
        assert sweep(room, old=False).steps == 0
        guest = Guest(room)
        guest.client.functions[1] = room.function()
        guest.says(Resubmit([(id, 1, b"args")]))
        room.supervisor.committer.settle()
        [told] = guest.hears(Results)
        assert told.rows[0][:3] == (id, 0, b"result")


def test_who_asks_for_a_step_that_is_gone_is_told_so(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        [id] = done(room, 1)
        sweep(room)
        guest = Guest(room)
        guest.says(Adopt([id], []))
        room.supervisor.committer.settle()
        [told] = guest.hears(Results)
        assert told.rows[0][:2] == (id, FAILED)
        assert b"dq gc" in told.rows[0][2]


def test_files_go_with_their_rows_unless_another_row_names_them(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        mine, shared = side_file(room, "a1"), side_file(room, "a2")
        done(room, 1, mine)
        done(room, 1, shared)
        Guest(room).submits(room.function("m:other"), 1, shared)
        tally = sweep(room)
        assert (tally.steps, tally.files) == (2, 1)
        assert files(room) == {"a2"}


def test_a_file_is_unlinked_after_its_row_is_durably_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_room(tmp_path) as room:
        done(room, 1, side_file(room, "a1"))
        deleted_at: list[int] = []
        unlinked_at: list[int] = []
        store, committer = room.supervisor.store, room.supervisor.committer
        original_purge, original_unlink = store.purge, janitor.Task.unlink

        def purge(kind: Kind, ids: Sequence[int], seconds: float) -> int:
            deleted_at.append(committer.syncs)
            return original_purge(kind, ids, seconds)

        def unlink(task: janitor.Task, files: list[janitor.SideFile]) -> janitor.Task:
            unlinked_at.append(committer.syncs)
            return original_unlink(task, files)

        monkeypatch.setattr(store, "purge", purge)
        monkeypatch.setattr(janitor.Task, "unlink", unlink)
        sweep(room)
        assert len(unlinked_at) == 1
        assert unlinked_at[0] > deleted_at[-1]


def test_what_attempts_have_left_goes_after_an_hour(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        side_file(room, "s1-e5", age=4000)
        side_file(room, "s2-e5", age=3000)
        side_file(room, "a3", age=4000)
        side_file(room, "a4", age=90_000)
        scratch = Path(f"{room.db}.blobs/00/s9-e5-abcd.tmp")
        scratch.parent.mkdir(exist_ok=True)
        scratch.write_bytes(b"half")
        os.utime(scratch, (1, 1))
        assert sweep(room).files == 3
        assert files(room) == {"s2-e5", "a3"}
        assert not scratch.exists()


def test_a_file_of_an_open_claim_or_of_a_client_that_may_still_send_stays(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        function = room.function(cost=1000)
        hand, guest = Hand(room, function, 3), Guest(room)
        guest.submits(function, 1)
        room.turn()
        [claim] = hand.claims()
        first, _ = room.supervisor.clients._lease_to(guest.client)
        side_file(room, f"s1-e{claim.epoch}", age=90_000)
        side_file(room, f"a{first + 5}", age=90_000)
        assert sweep(room).files == 0
        hand.finishes(claim)
        room.supervisor.clients.gone(guest.client)
        assert sweep(room).files == 2


def test_nothing_is_unlinked_while_a_copy_is_made(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        side_file(room, "s1-e5", age=90_000)
        held = janitor.hold(f"{room.db}.blobs")
        tally = sweep(room)
        assert (tally.files, tally.held) == (0, True)
        os.close(held)
        tally = sweep(room)
        assert (tally.files, tally.held) == (1, False)


def test_others_have_their_turn_between_the_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "SLICE", 0.0)
    monkeypatch.setattr(chores_module, "SLICE", 0.0)
    with open_room(tmp_path) as room:
        done(room, 50)
        made, tally = keeper(room), Tally()
        made.chores.add(made.sweep(Wish(0), tally))
        function, guest = room.function("m:other"), Guest(room)
        submitted: list[int] = []

        def turn() -> bool:
            room.supervisor.timers.run(time.monotonic())
            submitted.extend(guest.submits(function, 1))
            room.supervisor.committer.settle()
            return not len(made.chores)

        wait_until(turn)
        assert tally.steps == 50
        assert len(submitted) > 50
        room.supervisor.committer.settle()
        assert [row[0] for row in room.rows("SELECT id FROM dq_step ORDER BY id")] == sorted(submitted)


def test_a_full_disk_ends_it_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_room(tmp_path) as room:
        done(room, 3)
        made, guest = keeper(room), Guest(room)

        def full(*_: object) -> int:
            raise DiskFull("no room left")

        monkeypatch.setattr(room.supervisor.store, "purge", full)
        made._asked(guest.client, Sweep(7, 0, False, False))
        run(room, made)
        room.supervisor.committer.settle()
        [told] = guest.hears(Refused)
        assert (told.ticket, told.error) == (7, "DiskFull")
        assert room.rows("SELECT count(*) FROM dq_step") == [(3,)]


def test_whoever_asks_is_told_what_went(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        done(room, 3)
        guest, made = Guest(room), keeper(room)
        made._asked(guest.client, Sweep(7, 0, False, False))
        run(room, made)
        room.supervisor.committer.settle()
        assert guest.hears(Swept) == [Swept(7, 0, 3, 0, 0, 0, False)]


@pytest.mark.parametrize(
    ("leap", "left"), [(0, 0), (HOUR * 2, 1), (-HOUR * 2, 1)], ids=["right", "set ahead", "set back"]
)
def test_the_policy_acts_unless_the_clock_has_made_a_leap(tmp_path: Path, leap: int, left: int) -> None:
    clock = Watch()
    with open_room(tmp_path, clock=clock) as room:
        done(room, 1)
        room.supervisor.options = replace(room.supervisor.options, keep=0.000_001)
        made = keeper(room)
        assert (room.supervisor.timers.timeout(time.monotonic()) or 0) > upkeep.FIRST - 10
        clock.ahead = leap
        made._by_policy()
        run(room, made)
        assert room.rows("SELECT count(*) FROM dq_step") == [(left,)]


def test_a_lock_of_a_folder_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert janitor.hold(str(tmp_path / "none")) == -1
    assert janitor.listing(str(tmp_path / "none")) == []
    held = janitor.hold(str(tmp_path))
    with pytest.raises(BlockingIOError):
        janitor.hold(str(tmp_path), fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(held)


def test_a_kill_between_the_deletions_leaves_what_the_next_one_finishes(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        done(room, 20, side_file(room, "a1"))
        room.supervisor.store.purge(STEP, [1, 2, 3], 10.0)
    with open_room(tmp_path) as room:
        assert sweep(room).steps == 17
        assert files(room) == set()
