"""What a death costs whom: the steps that were begun are charged, and nobody else; and who counts as hung."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dq.crew.evidence import Death
from dq.crew.kernel import Linux
from dq.crew.members import HOST, Member
from dq.crew.reaper import GRACE, STARVED, Verdict, Watch, autopsy, reap, running_run
from dq.executor.failures import Failure
from dq.executor.frames import Results
from dq.executor.slots import SlotReader
from dq.model.payload import HEAD
from tests.unit.crewroom import Guest, Hand, Room, open_room
from tests.unit.timekeeping import Seconds
from tests.waiting import wait_until

KILLED = Death(signal.SIGKILL, 50 << 10)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with open_room(tmp_path) as room:
        yield room


def dies(room: Room, hand: Hand, death: Death = KILLED) -> None:
    room.supervisor._lost(hand.member, death)


def outcomes(verdicts: list[Verdict]) -> list[tuple[int, str, bool]]:
    return [(verdict.row[0], verdict.outcome, verdict.charged) for verdict in verdicts]


def test_the_slot_tells_begun_from_unsent_from_untouched(room: Room) -> None:
    function = room.function(cost=1000)
    hand = Hand(room, function, 0)
    ids = Guest(room).submits(function, 4)
    room.turn()
    [claim] = hand.claims()
    for index in range(2):
        hand.slot.begin(index, ids[index], claim.epoch)
    hand.slot.finish(0)
    verdicts = autopsy(hand.member, room.supervisor.slots)
    assert outcomes(verdicts) == [
        (ids[0], "lost", False), (ids[1], "crashed", True), (ids[2], "", False), (ids[3], "", False)
    ]  # fmt: skip
    assert autopsy(hand.member, room.supervisor.slots) == verdicts, "a look changes nothing"


def test_an_entry_of_an_earlier_claim_says_nothing(room: Room) -> None:
    """The same step under another epoch: begun by a claim that is over, and not begun under this one."""
    function = room.function(cost=1000)
    hand = Hand(room, function, 0)
    [id] = Guest(room).submits(function, 1)
    room.turn()
    hand.slot.begin(0, id, hand.claims()[0].epoch - 1)
    assert outcomes(autopsy(hand.member, room.supervisor.slots)) == [(id, "", False)]


def test_what_is_handed_back_is_nobodys_fault(room: Room) -> None:
    function = room.function()
    hand = Hand(room, function, 0)
    [id] = Guest(room).submits(function, 1)
    room.turn()
    hand.slot.begin(0, id, hand.claims()[0].epoch)
    hand.member.why = "handed back"
    assert outcomes(autopsy(hand.member, room.supervisor.slots)) == [(id, "lost", False)]


def test_a_death_frees_everything_and_charges_what_was_begun(room: Room) -> None:
    function = room.function(cost=1000)
    hand, guest = Hand(room, function, 0), Guest(room)
    ids = guest.submits(function, 5)
    room.turn()
    [claim] = hand.claims()
    hand.finishes(claim, ids[0])
    hand.slot.begin(0, ids[1], claim.epoch)
    hand.slot.finish(0)
    hand.slot.begin(1, ids[2], claim.epoch)
    dies(room, hand)
    assert room.rows("SELECT step, attempt, outcome, charged FROM dq_attempt") == [
        (ids[1], 1, "lost", 0), (ids[2], 1, "crashed", 1)
    ]  # fmt: skip
    [(cause,)] = room.rows("SELECT cause FROM dq_attempt WHERE charged")
    assert cause.startswith("the worker was ended by SIGKILL, peak memory 50 MiB")
    assert room.rows("SELECT count(*) FROM dq_claim") == [(0,)]
    assert room.supervisor.scheduler.claimed == 0
    heir = Hand(room, function, 1)
    room.turn()
    rows = [row for claim in heir.claims() for row in claim.rows]
    assert [row[:2] for row in rows] == [(ids[1], 2), (ids[2], 2), (ids[3], 1), (ids[4], 1)]


def test_the_slot_is_kept_until_its_evidence_is_in_the_file(room: Room) -> None:
    function = room.function()
    hand = Hand(room, function, 0)
    [id] = Guest(room).submits(function, 1)
    room.turn()
    hand.slot.begin(0, id, hand.claims()[0].epoch)
    dies(room, hand)
    assert room.supervisor.slots.entries(0)
    assert 0 not in room.supervisor.staff._free
    room.supervisor.committer.commit()
    assert not room.supervisor.slots.entries(0)
    assert 0 in room.supervisor.staff._free


def test_a_step_that_kills_too_often_is_quarantined(room: Room) -> None:
    function = room.function(max_crashes=2)
    guest = Guest(room)
    [id] = guest.submits(function, 1)
    for number in range(2):
        hand = Hand(room, function, number)
        room.turn()
        [claim] = hand.claims()
        assert claim.rows[0][1] == number + 1
        hand.slot.begin(0, id, claim.epoch)
        dies(room, hand)
    assert room.rows("SELECT step, state, attempt FROM dq_result") == [(id, "dead", 2)]
    [told] = [row for message in guest.hears(Results) for row in message.rows]
    failure = msgspec.msgpack.decode(told[2][HEAD.size :], type=Failure)
    assert "m:f killed its worker 2 times and is quarantined" in failure.text
    assert "SIGKILL" in str(pickle.loads(failure.pickled))
    assert room.supervisor.ledger.crashes == {}
    assert room.rows("SELECT count(*) FROM dq_batch") == [(0,)]


def test_the_run_that_a_host_was_running(room: Room) -> None:
    hand = Hand(room, room.function(), 0)
    assert running_run(hand.member, room.supervisor.slots) == 0, "a worker runs none"
    hand.member.kind = HOST
    assert running_run(hand.member, room.supervisor.slots) == 0, "it rests"
    hand.slot.begin(0, 77, 0)
    assert running_run(hand.member, room.supervisor.slots) == 77


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that leads its own group, as members do, and sleeps."""
    program = "import time; print('here', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()


def member_of(process: subprocess.Popen[bytes], room: Room) -> Member:
    member = Hand(room, room.function(), 0).member
    assert member.adopt(process.pid, 1, Linux())
    return member


def test_reaping(room: Room, process: subprocess.Popen[bytes]) -> None:
    member = member_of(process, room)
    assert reap(member, Linux()) is None, "it lives"
    process.kill()
    death = wait_until(lambda: reap(member, Linux()))
    assert death is not None
    assert os.waitstatus_to_exitcode(death.status) == -signal.SIGKILL
    assert death.rss > 1000
    assert reap(member, Linux()) == Death(-1, 0), "somebody else has taken its status"
    os.close(member.pidfd)
    process.returncode = -9


def test_one_that_is_gone_before_it_is_known_is_not_adopted(room: Room, process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    member = Hand(room, room.function(), 0).member
    member.pid = 0
    assert not member.adopt(process.pid, 1, Linux())
    assert member.pid == 0


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


def looks(watch: Watch, clock: Seconds, member: Member, seconds: float) -> list[str]:
    """The supervisor looks at each tick for so many seconds; what it finds."""
    found: list[str] = []
    for _ in range(round(seconds / watch.tick)):
        clock.seconds += watch.tick
        found += [why for _, why in watch.hung([member])]
    return found


def test_a_beating_heart_is_never_hung(room: Room, clock: Seconds) -> None:
    hand = Hand(room, room.function(), 0)
    watch = Watch(SlotReader(room.memory), 2.0, clock, Linux())
    for _ in range(30):
        hand.slot.beat()
        assert looks(watch, clock, hand.member, 1.5) == []


def test_without_a_beat_it_is_stopped_or_makes_no_progress(
    room: Room, clock: Seconds, process: subprocess.Popen[bytes]
) -> None:
    member = member_of(process, room)
    watch = Watch(SlotReader(room.memory), 2.0, clock, Linux())
    assert looks(watch, clock, member, 2.0) == [], "not yet"
    assert looks(watch, clock, member, STARVED) == [], "a busy machine may have had no time for it"
    assert looks(watch, clock, member, 1.5)[-1] == "no heartbeat and no progress for more than 2 s"
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T")
    assert looks(watch, clock, member, 0.5) == ["stopped for more than 2 s"]
    os.close(member.pidfd)


def test_one_that_burns_cpu_is_busy(room: Room, clock: Seconds) -> None:
    """This process stands in for it: between two looks it works."""
    hand = Hand(room, room.function(), 0)
    hand.member.pid = os.getpid()
    watch = Watch(SlotReader(room.memory), 2.0, clock, Linux())
    for _ in range(40):
        before = time.process_time()
        while time.process_time() < before + 0.03:
            sum(range(1000))
        assert looks(watch, clock, hand.member, 0.5) == []


def test_after_a_stop_of_the_supervisor_itself_nobody_is_hung(room: Room, clock: Seconds) -> None:
    hand = Hand(room, room.function(), 0)
    hand.member.pid = os.getpid()
    watch = Watch(SlotReader(room.memory), 2.0, clock, Linux())
    looks(watch, clock, hand.member, 1.5)
    clock.seconds += watch.tick + GRACE + 1
    assert watch.hung([hand.member]) == []
    assert looks(watch, clock, hand.member, 1.5) == [], "all are given their time anew"
