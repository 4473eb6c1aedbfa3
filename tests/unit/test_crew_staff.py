"""How many members there are, how they are replaced, and that no failure to get one brings the supervisor down."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.crew.members import Lane, Member
from dq.crew.nursery import BACKOFF, Nursery
from dq.crew.peer import Peer
from dq.crew.staff import GIVE_UP, STARTING_MAX
from dq.executor.berth import start_ticks
from dq.executor.frames import Context, Joined, Stop, Unfit
from dq.executor.link import Closed, Link
from dq.executor.slots import SLOTS
from tests.unit.crewroom import Guest, Room, open_room
from tests.waiting import wait_until


class Ward:
    """Takes the place of templates: members that are asked for are born when the test wants."""

    def __init__(self, room: Room) -> None:
        self.asked: list[tuple[Member, Link, Link]] = []
        self.refusal: OSError | None = None
        self._room = room

    def fork(self, member: Member, executor: str, boot_epoch: int, salt: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        main, child_main = socket.socketpair()
        control, child_control = socket.socketpair()
        member.peer = Peer(main, self._room.supervisor.poller)
        member.control = Peer(control, self._room.supervisor.poller)
        self._room.sockets += [main, child_main, control, child_control]
        self.asked.append((member, Link(child_main), Link(child_control)))

    def joins(self, member: Member, link: Link, pid: int) -> None:
        link.send(Joined(pid, start_ticks(pid), member.nonce))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def room(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    with open_room(tmp_path, workers=100) as room:
        monkeypatch.setattr(room.supervisor.staff, "_notice", said.append)
        yield room


@pytest.fixture
def ward(room: Room, monkeypatch: pytest.MonkeyPatch) -> Ward:
    ward = Ward(room)
    monkeypatch.setattr(Nursery, "fork", ward.fork)
    monkeypatch.setattr(Nursery, "preload", lambda *_: True)
    return ward


@pytest.fixture
def lane(room: Room, ward: Ward) -> Lane:
    """Work for everybody."""
    function = room.function()
    Guest(room).submits(function, 1000)
    lane = room.supervisor.scheduler.lane(function)
    assert lane is not None
    lane.nursery.ready = True
    return lane


def join(ward: Ward, count: int) -> None:
    """So many of those that are on their way are there."""
    for member in [member for member, _, _ in ward.asked if not member.pid][:count]:
        member.pid, member.ready = 4000 + member.slot, True


def test_orders_never_overflow_the_templates_socket(room: Room, ward: Ward, lane: Lane) -> None:
    staff = room.supervisor.staff
    staff.keep(100.0)
    staff.keep(100.0)
    assert len(ward.asked) == STARTING_MAX
    join(ward, 10)
    staff.keep(100.0)
    assert len(ward.asked) == STARTING_MAX + 10
    for _ in range(4):
        join(ward, STARTING_MAX)
        staff.keep(100.0)
    assert len(ward.asked) == len(lane.members) == 100, "as many as the pool has"


def test_where_there_is_no_slot_nobody_is_hired(room: Room, ward: Ward, lane: Lane) -> None:
    room.supervisor.staff._free = [5, 6]
    room.supervisor.staff.keep(100.0)
    assert len(ward.asked) == 2
    room.supervisor.staff.homeless = {room.context}
    room.supervisor.staff.keep(100.0)
    assert len(ward.asked) == 2


def test_a_system_that_refuses_processes_is_asked_again_later(
    room: Room, ward: Ward, lane: Lane, said: list[str]
) -> None:
    staff = room.supervisor.staff
    ward.refusal = OSError(24, "Too many open files")
    now = 100.0
    for tries in range(1, 8):
        staff.keep(now)
        assert lane.failures == tries
        assert len(staff._free) == SLOTS
        staff.keep(now)
        assert lane.failures == tries, "not before its time"
        wait = staff.next_try(now) or 0.0
        assert wait == pytest.approx(BACKOFF[min(tries, len(BACKOFF) - 1)])
        now += wait
    assert len(said) == 1
    assert "Too many open files" in said[0]
    ward.refusal = None
    staff.keep(now)
    assert len(ward.asked) == STARTING_MAX


def test_members_that_cannot_start_are_told_once_and_tried_again_with_patience(
    room: Room, ward: Ward, lane: Lane, said: list[str]
) -> None:
    lane.pool.size = 1
    for tries in range(1, GIVE_UP + 3):
        lane.retry_at = 0.0
        room.supervisor.staff.keep(100.0)
        member, link, _ = ward.asked[-1]
        assert len(ward.asked) == tries
        link.send(Unfit("no licence for this machine"))
        link.sock.close()
        room.supervisor._on_member(member, 1)
        room.supervisor._on_member(member, 1)
        assert member not in room.supervisor.staff.members
        room.supervisor.committer.commit()
        assert len(room.supervisor.staff._free) == SLOTS, "its slot is free again"
    assert len(said) == 1
    assert "no licence for this machine" in said[0]


def test_a_member_that_had_joined_outlives_its_template(room: Room, ward: Ward, lane: Lane) -> None:
    """Its word may wait to be heard when the template's death is."""
    lane.pool.size = 2
    room.supervisor.staff.keep(100.0)
    (joined, link, _), (never, _, _) = ward.asked
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        ward.joins(joined, link, process.pid)
        dead = lane.nursery
        dead.dead = lambda: True  # type: ignore[method-assign]
        room.supervisor.staff._template_died(dead)
        assert room.supervisor.staff.members == {joined}
        assert joined.ready
        assert not joined.peer.closed
        assert never not in lane.members
        room.supervisor.poller.unregister(joined.pidfd)
        os.close(joined.pidfd)


def test_an_idle_member_is_sent_home_for_a_lane_that_has_none(room: Room, ward: Ward, lane: Lane) -> None:
    lane.pool.size = 1
    room.supervisor.staff.keep(100.0)
    [(member, _, control)] = ward.asked
    member.pid, member.ready = 4000, True
    lane.pending = 0
    elsewhere = room.supervisor.ledger.context(Context("python", "", "/", ("/elsewhere",), ""))
    other = Lane(lane.pool, room.supervisor.staff.nursery(elsewhere))
    other.nursery.ready = True
    other.pending = 5
    lane.pool.lanes.append(other)
    room.supervisor.scheduler.lanes["cpu", elsewhere] = other
    room.supervisor.staff.keep(101.0)
    room.supervisor.staff.keep(101.0)
    assert control.poll() == [Stop()], "once"
    assert len(ward.asked) == 1


def test_an_interpreter_that_is_not_there(room: Room, said: list[str], tmp_path: Path) -> None:
    staff = room.supervisor.staff
    context = room.supervisor.ledger.context(Context(str(tmp_path / "python"), "", "/", (), ""))
    nursery = staff.nursery(context)
    assert not staff._prepare(nursery, 100.0)
    assert not staff._prepare(nursery, 100.0)
    assert len(said) == 1
    assert f"dq can't start {tmp_path}/python" in said[0]
    assert nursery.retry_at > 100.0
    staff._prepare(nursery, nursery.retry_at + 1)
    assert len(said) == 1, "it is not told again and again"


def test_a_template_that_dies_before_it_is_ready(room: Room, said: list[str], tmp_path: Path) -> None:
    """It takes its time between tries, says so, and ends when its code is not wanted any more."""
    script = tmp_path / "script.py"
    script.write_text("import os\nif __name__ != '__main__':\n    os._exit(3)\n")
    staff = room.supervisor.staff
    context = Context(sys.executable, str(script), str(tmp_path), tuple(sys.path), "")
    nursery = staff.nursery(room.supervisor.ledger.context(context))
    now = 100.0
    for tries in range(1, GIVE_UP + 2):
        staff._prepare(nursery, now)
        assert nursery.pid
        wait_until(lambda: room.supervisor.poller.poll(0.1) and not nursery.pid, 60)
        assert nursery.failures == tries
        now = nursery.retry_at
    assert len(said) == 1
    assert f"the template of {script} died 5 times" in said[0]


def test_a_closed_peer_of_a_member_ends_it(room: Room, ward: Ward, lane: Lane) -> None:
    lane.pool.size = 1
    room.supervisor.staff.keep(100.0)
    [(member, link, control)] = ward.asked
    link.sock.close()
    room.supervisor._on_member(member, 1)
    assert room.supervisor.staff.members == set()
    with pytest.raises(Closed):
        control.receive()
