"""Members that never get ready, and code that ends every process that loads it: both cost little, and others go on."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

from dq.crew.nursery import BACKOFF, Nursery
from dq.crew.staff import GIVE_UP, START_MAX
from dq.executor.frames import Context, Ready
from tests.unit.crewroom import Guest, open_room
from tests.unit.test_crew_leaps import Clocks
from tests.unit.test_crew_staff import Ward


def test_a_member_that_hangs_at_its_start_is_given_up_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks()
    with open_room(tmp_path, workers=2, clock=clocks) as room:
        ward, killed = Ward(room), list[int]()
        monkeypatch.setattr(Nursery, "fork", ward.fork)
        monkeypatch.setattr(Nursery, "preload", lambda *_: True)
        monkeypatch.setattr(room.supervisor.staff._kernel, "kill", lambda pid, _fd: killed.append(pid))
        function = room.function()
        Guest(room).submits(function, 10)
        lane = room.supervisor.scheduler.lane(function)
        assert lane is not None
        lane.nursery.ready = True
        room.supervisor.staff.keep(clocks.monotonic())
        mute, stuck = [member for member, _, _ in ward.asked]
        stuck.pid = 4001  # it has come as far as to say who it is
        clocks.passes(START_MAX)
        room.supervisor._tick()
        assert {mute, stuck} <= room.supervisor.staff.members, "not yet"
        clocks.passes(0.1)
        room.supervisor._tick()
        assert killed == [4001]
        assert stuck in room.supervisor.staff.members, "its place is free when it is dead"
        assert mute not in room.supervisor.staff.members
        assert {mute.why, stuck.why} == {"it did not start in time"}
        clocks.passes(BACKOFF[-1])
        room.supervisor.staff.keep(clocks.monotonic())
        assert len(ward.asked) == 3, "another one is asked for"


def test_a_storm_of_restarts_is_a_breeze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that ends its template at once: how many are started within an hour, however often the loop comes by."""
    clocks, started, told = Clocks(), list[float](), list[str]()
    with open_room(tmp_path, clock=clocks) as room:
        staff = room.supervisor.staff
        monkeypatch.setattr(staff, "_notice", told.append)
        nursery = staff.nursery(room.supervisor.ledger.context(Context(sys.executable, "s.py", "/", (), "")))

        def start(each: Nursery, now: float) -> None:
            started.append(now)
            monkeypatch.setattr(each, "dead", lambda: True)
            monkeypatch.setattr(room.supervisor.poller, "unregister", lambda _fd: None)
            staff._template_died(each)

        monkeypatch.setattr(staff, "_start", start)
        for _ in range(36_000):
            staff._prepare(nursery, clocks.monotonic())
            clocks.passes(0.1)
    assert len(started) <= 3600 / BACKOFF[-1] + len(BACKOFF)
    gaps = [after - before for before, after in pairwise(started)]
    assert min(gaps[len(BACKOFF) :]) > BACKOFF[-1] - 0.01
    assert len(told) == 1
    assert f"{GIVE_UP} times" in told[0]


def test_code_whose_import_hangs_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have much to load, so it is not killed; but who waits for it learns why."""
    clocks, told = Clocks(), list[str]()
    with open_room(tmp_path, clock=clocks) as room:
        staff = room.supervisor.staff
        monkeypatch.setattr(staff, "_notice", told.append)
        nursery = staff.nursery(room.supervisor.ledger.context(Context(sys.executable, "s.py", "/", (), "")))
        monkeypatch.setattr(nursery, "start", lambda: Guest(room).peer)
        monkeypatch.setattr(room.supervisor.poller, "register", lambda *_: None)
        staff._prepare(nursery, clocks.monotonic())
        nursery.pid = 4000
        for _ in range(round(START_MAX)):
            staff.look_again()
            clocks.passes(1)
        assert told == []
        for _ in range(100):
            clocks.passes(1)
            staff.look_again()
        [text] = told
        assert "s.py is still being imported, after 21 s (pid 4000)" in text
        nursery.hear(Ready(1))
        assert staff._prepare(nursery, clocks.monotonic())
        assert not nursery.slow
