"""When a member is looked at, what ends it, and who is let go after enough work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dq.crew.evidence import Death
from dq.crew.kernel import Linux
from dq.crew.limits import DUMP_WAIT, Limits
from dq.executor.frames import Claim, Stop
from tests.unit.crewroom import Guest, Hand, Room, open_room
from tests.unit.timekeeping import Seconds

SECOND = 10**9


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
def room(tmp_path: Path, clock: Seconds) -> Iterator[Room]:
    with open_room(tmp_path, clock=clock) as room:
        yield room


class Scene:
    """A worker that has been given steps of half a second each, and what the supervisor does to it."""

    def __init__(self, room: Room, clock: Seconds, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> None:
        self.room = room
        self.clock = clock
        self.asked: list[float] = []
        self.killed: list[tuple[float, str]] = []
        monkeypatch.setattr(Limits, "ask_for_stack", lambda _self, _member: self.asked.append(clock.seconds))
        monkeypatch.setattr(
            room.supervisor.staff, "kill", lambda _member, why: self.killed.append((clock.seconds, why))
        )
        function = room.function(timeout=500_000, cost=1000)
        self.hand = Hand(room, function, 3)
        self.ids = Guest(room).submits(function, count)
        room.turn()
        self.claim: Claim
        [self.claim] = self.hand.claims()

    def begins(self, place: int, *, said: bool = True) -> None:
        """A body begins; `said`: the worker has come as far as to say when."""
        self.hand.slot.begin(place, self.ids[place], self.claim.epoch)
        if said:
            self.hand.slot.time(self.ids[place], int(self.clock.seconds * SECOND))

    def ends(self, place: int) -> None:
        self.hand.slot.time(0, 0)
        self.hand.slot.finish(place)
        self.hand.slot.free(place)
        self.hand.finishes(self.claim, self.ids[place])

    def passes(self, seconds: float) -> None:
        """Seconds goes by, with every timer at its time."""
        timers, end = self.room.supervisor.timers, self.clock.seconds + seconds
        while (left := timers.timeout(self.clock.seconds)) is not None and self.clock.seconds + left <= end:
            self.clock.seconds += left + 1e-9
            timers.run(self.clock.seconds)
        self.clock.seconds = max(end, self.clock.seconds)


@pytest.fixture
def scene(room: Room, clock: Seconds, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(room, clock, monkeypatch, count=2)


def test_a_body_that_takes_too_long(scene: Scene) -> None:
    scene.begins(0)
    scene.passes(0.49)
    assert not scene.asked
    scene.passes(0.02)
    assert scene.asked == [pytest.approx(1000.5)]
    assert not scene.killed, "it has a moment to leave its stack"
    scene.passes(DUMP_WAIT)
    [(when, why)] = scene.killed
    assert when == pytest.approx(1000.5 + DUMP_WAIT)
    assert why == "timed out"
    doom = scene.room.supervisor.results.doomed[scene.ids[0]]
    assert (doom.member, doom.outcome) == (scene.hand.member, "timed_out")
    assert "0.5 s" in doom.why


def test_the_time_before_a_body_began_does_not_count(scene: Scene) -> None:
    scene.passes(30)
    scene.begins(0)
    scene.passes(0.4)
    scene.ends(0)
    scene.passes(0.3)
    scene.begins(1)
    scene.passes(0.4)
    assert not scene.asked
    scene.passes(0.2)
    assert scene.asked == [pytest.approx(1031.2)]


def test_a_body_that_begins_at_the_look_is_seen_a_moment_later(scene: Scene) -> None:
    scene.passes(0.49)
    scene.begins(0, said=False)
    scene.passes(0.02)
    scene.hand.slot.time(scene.ids[0], int(scene.clock.seconds * SECOND))
    scene.passes(0.49)
    assert not scene.asked
    scene.passes(0.02)
    assert scene.asked


def test_one_that_ends_while_its_stack_is_asked_for_is_spared(scene: Scene) -> None:
    scene.begins(0)
    scene.passes(0.52)
    assert scene.asked
    scene.ends(0)
    scene.begins(1)
    scene.passes(0.3)
    assert not scene.killed
    scene.passes(0.4)
    assert [why for _, why in scene.killed] == ["timed out"], "the next one is held to its own time"


def test_nobody_is_looked_at_for_steps_that_have_ended(scene: Scene) -> None:
    for place in (0, 1):
        scene.begins(place)
        scene.ends(place)
    scene.passes(5)
    assert scene.room.supervisor.timers.timeout(0) is None
    assert not scene.room.supervisor.limits._looks


def test_a_stack_is_asked_for_with_a_signal(room: Room) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        hand = Hand(room, room.function(), 3)
        assert hand.member.adopt(process.pid, 1, Linux())
        room.supervisor.limits.ask_for_stack(hand.member)
        assert process.wait(20) == -signal.SIGUSR1
        room.supervisor.limits.ask_for_stack(hand.member)
        os.close(hand.member.pidfd)
    finally:
        process.kill()
        process.communicate()


def recycling(room: Room, steps: int = 0, rss: int = 0) -> None:
    room.supervisor.options = replace(room.supervisor.options, recycle_steps=steps, recycle_rss=rss)
    room.supervisor.limits = Limits(room.supervisor)


def test_a_worker_that_has_done_enough_leaves(room: Room) -> None:
    recycling(room, steps=3)
    function = room.function(cost=1000)
    hand = Hand(room, function, 3)
    ids = Guest(room).submits(function, 5)
    room.turn()
    [claim] = hand.claims()
    hand.finishes(claim, *ids[:2])
    assert not hand.control.poll()
    hand.finishes(claim, ids[2])
    assert [type(message) for message in hand.control.poll()] == [Stop]
    hand.finishes(claim, ids[3])
    assert not hand.control.poll(), "once is enough"
    room.supervisor.scheduler.gave_back(hand.member, [(claim.epoch, ids[4])])
    other = Hand(room, function, 4)
    room.turn()
    assert other.ids() == [ids[4]]
    assert room.rows("SELECT count(*) FROM dq_attempt") == [(0,)]


def test_a_worker_that_has_grown_leaves(room: Room) -> None:
    recycling(room, rss=1 << 20)
    function = room.function(cost=1000)
    hand = Hand(room, function, 3)
    ids = Guest(room).submits(function, 2)
    room.turn()
    [claim] = hand.claims()
    hand.member.pid = 0  # whose memory nobody can see
    hand.finishes(claim, ids[0])
    assert not hand.control.poll()
    hand.member.pid = os.getpid()
    hand.finishes(claim, ids[1])
    assert [type(message) for message in hand.control.poll()] == [Stop]


def test_a_hung_worker_that_died_meanwhile_is_not_killed_again(
    room: Room, clock: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the wish for its stack and the kill it has died; its number and its descriptor may be others' by then."""
    hand = Hand(room, room.function(), 3)
    killed: list[int] = []
    monkeypatch.setattr(Limits, "ask_for_stack", lambda _self, _member: None)
    monkeypatch.setattr(os, "killpg", lambda pid, _signal: killed.append(pid))
    room.supervisor.limits.end_hung(hand.member, "no heartbeat")
    room.supervisor._lost(hand.member, Death(9, 0))
    clock.seconds += 2 * DUMP_WAIT
    room.supervisor.timers.run(clock.seconds)
    assert not room.supervisor.timers
    assert killed == []
