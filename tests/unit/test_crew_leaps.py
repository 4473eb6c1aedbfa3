"""The system's clock is set, or stands still with the machine: nothing is lost, early by that clock, or anybody's fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dq.crew.kernel import Linux
from dq.crew.reaper import Watch
from dq.executor.frames import Results
from dq.executor.slots import WORKER as WORKER_KIND
from dq.executor.slots import SlotReader, SlotWriter, open_slots
from dq.flow.queue import Queue
from dq.model.payload import DELAY
from dq.model.states import RETRY
from tests.unit.crewroom import Guest, Hand, Room, open_room
from tests.unit.hostroom import lodge
from tests.unit.queueroom import Gang, step, submits
from tests.unit.test_crew_attempts import POLICY, TOLD

SECOND = 1_000_000
HOUR, YEAR = 3600, 365 * 86400
LEAPS = [HOUR, -HOUR, YEAR, -YEAR]


class Clocks:
    """Two clocks: one that people set, and one that goes on whatever they do."""

    def __init__(self) -> None:
        self.wall = self.at = 1_764_000_000 * SECOND
        self.passed = 1000.0

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.passed

    def passes(self, seconds: float) -> None:
        """Time goes by."""
        self.at += round(seconds * SECOND)
        self.passed += seconds

    def leaps(self, seconds: float) -> None:
        """The clock is set, or the machine sleeps: in both cases the other clock knows nothing of it."""
        self.at += round(seconds * SECOND)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def room(tmp_path: Path, clocks: Clocks) -> Iterator[Room]:
    with open_room(tmp_path, clock=clocks) as room:
        yield room


def looks(room: Room) -> None:
    """What the supervisor does each turn, and each second."""
    room.supervisor.alarms.run(room.supervisor.clock.now())
    room.supervisor.leaps.look()


@pytest.mark.parametrize("leap", LEAPS)
def test_a_rate_goes_on_after_a_leap(room: Room, clocks: Clocks, leap: int) -> None:
    function = step(room, Queue("q", rate=(2, 10)), cost=50_000_000)
    gang = Gang(room, function, 4)
    ids = submits(Guest(room), function, *[{}] * 4)
    assert gang.turn() == ids[:2]
    gang.finishes(*ids[:2])
    clocks.leaps(leap)
    looks(room)
    if leap < 0:
        assert gang.turn() == [], "no more than two in ten seconds that have passed"
        clocks.passes(10.1)
        looks(room)
    assert gang.turn() == ids[2:]


def test_a_rate_that_a_successor_finds_in_its_future(tmp_path: Path, clocks: Clocks) -> None:
    queue = Queue("q", rate=(3, 10))
    with open_room(tmp_path, clock=clocks) as room:
        function = step(room, queue, cost=50_000_000)
        gang = Gang(room, function, 3)
        ids = submits(Guest(room), function, *[{}] * 6)
        for _ in range(3):
            [begun] = gang.turn()[:1] if not gang.open else [next(iter(gang.open))]
            assert begun in ids
            clocks.passes(1)
        gang.finishes(*ids[:3])
        room.supervisor.committer.settle()
    clocks.leaps(-YEAR)
    with open_room(tmp_path, clock=clocks) as room:
        gang = Gang(room, step(room, queue, cost=50_000_000), 3)
        assert gang.turn() == []
        clocks.passes(10.1)
        looks(room)
        assert gang.turn() == ids[3:], "all three at once, and not one each ten seconds"


@pytest.mark.parametrize("leap", [*LEAPS, 8 * HOUR])
def test_what_is_due_is_never_early_by_the_clock_and_never_lost(tmp_path: Path, clocks: Clocks, leap: int) -> None:
    """A timer, a wait with a limit, a delay and a second attempt: each at its time on record, once."""
    with lodge(tmp_path, clocks) as inn:  # type: ignore[arg-type]
        run = inn.start()
        waits = [inn.sleeps(run, 100), inn.waits(run, seconds=200)]
        function = inn.room.function(**POLICY)
        hand = Hand(inn.room, function, 0)
        [failing] = inn.guest.submits(function, 1)
        inn.turn()
        [claim] = hand.claims()
        rows = [(failing, RETRY, DELAY.pack(300 * SECOND) + TOLD, clocks.now(), 2000)]
        inn.supervisor.results.take(hand.member, Results(claim.epoch, rows))
        due = dict(inn.room.rows("SELECT step, due_at FROM dq_term"))
        assert sorted(due.values()) == [clocks.at + n * SECOND for n in (100, 200, 300)]
        clocks.leaps(leap)
        done: dict[int, int] = {}
        for moment in sorted({clocks.at, *(at for at in due.values() if at >= clocks.at)}):
            for at in (moment - 1, moment):
                _turn(inn, clocks, at)
                for id in [id for id in waits if inn.state(id)] + [row[0] for c in hand.claims() for row in c.rows]:
                    done.setdefault(id, clocks.at)
        assert done.keys() == due.keys()
        assert all(at >= due[id] for id, at in done.items())
        if leap < 0:
            assert done == due
    assert inn.supervisor.scheduler.claimed == 1


def _turn(inn: Any, clocks: Clocks, at: int) -> None:
    """The loop comes by at a moment of the system's clock."""
    if at > clocks.at:
        clocks.passes((at - clocks.at) / SECOND)
    inn.supervisor.leaps.look()
    inn.supervisor.alarms.run(clocks.at)
    inn.supervisor.scheduler.dispatch()
    inn.supervisor.hosts.deliver()
    inn.supervisor.committer.settle()


@pytest.mark.parametrize("leap", [8 * HOUR, -YEAR])
def test_nobody_is_hung_for_a_night_that_the_machine_has_slept(room: Room, clocks: Clocks, leap: int) -> None:
    """The clock that hearts and limits are held against stands still in the night."""
    hand = Hand(room, room.function(timeout=60 * SECOND), 0)
    watch = Watch(SlotReader(room.memory), 2.0, clocks, Linux())
    [id] = Guest(room).submits(room.function(timeout=60 * SECOND), 1)
    room.turn()
    [claim] = hand.claims()
    hand.slot.begin(0, id, claim.epoch)
    hand.slot.time(id, int(clocks.passed * 1e9))
    for _ in range(8):
        clocks.passes(0.5)
        hand.slot.beat()
        assert watch.hung([hand.member]) == []
    clocks.leaps(leap)
    clocks.passes(0.5)
    assert watch.hung([hand.member]) == []
    room.supervisor.timers.run(clocks.passed)
    assert not hand.member.why
    assert room.supervisor.timers, "the end of its time is still to come"


@pytest.mark.parametrize("leap", LEAPS)
def test_a_deadline_and_a_burst_keep_their_times(tmp_path: Path, clocks: Clocks, leap: int) -> None:
    with lodge(tmp_path, clocks) as inn:  # type: ignore[arg-type]
        run = inn.start("late", inn.workflow("m:late", timeout=100 * SECOND))
        function = inn.room.function()
        gang = Gang(inn.room, function, 1)
        burst = {"dedup": "w", "debounce": 50 * SECOND}
        _, last = submits(inn.guest, function, burst, burst)
        [(deadline,)] = inn.room.rows("SELECT deadline FROM dq_run")
        [(due,)] = inn.room.rows(f"SELECT due_at FROM dq_term WHERE step = {last}")
        assert clocks.at < due < deadline
        clocks.leaps(leap)
        begun: dict[int, int] = {}
        cancelled: list[int] = []
        for at in (due - 1, due, deadline - 1, deadline):
            _turn(inn, clocks, at)
            begun.update((id, clocks.at) for id in gang.turn())
            cancelled += [clocks.at] * (_cancels(inn, run.id) > len(cancelled))
        assert (begun, cancelled) == (({last: due}, [deadline]) if leap < 0 else ({last: clocks.at}, [clocks.at]))


def _cancels(inn: Any, run: int) -> int:
    inn.heard += inn.link.poll()
    told = [row[:2] for message in inn.heard for row in getattr(message, "rows", ())]
    return told.count((run, 0))


def test_a_leap_is_told_once_and_a_small_one_is_not(
    room: Room, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(room.supervisor.leaps, "_notice", told.append)
    for leap in (0.0, 0.2, -30.0, 8 * HOUR, 0.0, -YEAR, 0.0):
        clocks.passes(1)
        clocks.leaps(leap)
        room.supervisor.leaps.look()
    assert [text.partition(":")[0].partition(". ")[0] for text in told] == [
        "the system's clock has leapt forward by 8.0 hours",
        "the system's clock was set back by 365.0 days",
    ]


def test_a_slot_of_another_boot_says_nothing_of_its_new_owner(tmp_path: Path) -> None:
    """That boot's clock has begun elsewhere, and its step may be this one's too."""
    memory = open_slots(str(tmp_path / "slots"), create=True)
    before = SlotWriter(memory, 3)
    before.own(1, 100, 5, b"n" * 16, WORKER_KIND)
    before.begin(0, 7, 1 << 40)
    before.time(7, 1 << 60)
    SlotWriter(memory, 3).own(2, 100, 5, b"m" * 16, WORKER_KIND)
    reader = SlotReader(memory)
    assert reader.timed(3) == (0, 0)
    assert reader.entries(3) == []
