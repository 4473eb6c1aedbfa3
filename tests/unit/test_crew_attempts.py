"""What the supervisor makes of attempts that did not end their step: due times, budgets, parked steps, cursors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dq.crew.delays import FAR
from dq.crew.evidence import Death
from dq.errors import StepCrashed, StepTimeout
from dq.executor import failures
from dq.executor.contract import Capability
from dq.executor.frames import Cancel, CancelDone, Claim, Done, Progress, Refused, Release, Results, Submit, Try
from dq.model.payload import DELAY
from dq.model.states import FAILED, RETRY
from tests.unit.crewroom import Guest, Hand, Room, open_room
from tests.unit.timekeeping import SECOND, Clock

TOLD = failures.pack(ValueError("no luck"))
POLICY: dict[str, Any] = {"retry": b"a policy, which only workers unpickle"}


@pytest.fixture
def clock() -> Clock:
    return Clock("2026-11-24 18:05:00")


@pytest.fixture
def room(tmp_path: Path, clock: Clock) -> Iterator[Room]:
    with open_room(tmp_path, clock=clock) as room:
        yield room


class Scene:
    """A worker and a client, and one step that the worker has."""

    def __init__(self, room: Room, count: int = 1, **told: Any) -> None:
        self.room = room
        self.function = room.function(**told)
        self.hand = Hand(room, self.function, 3)
        self.guest = Guest(room)
        self.ids = self.guest.submits(self.function, count)
        self.claim = self.given()

    def given(self) -> Claim:
        self.room.turn()
        [claim] = self.hand.claims()
        return claim

    def fails(self, claim: Claim, *ids: int, delay: float, began: int = 5) -> None:
        """Attempts that are to be followed by others after so many seconds."""
        payload = DELAY.pack(int(delay * SECOND)) + TOLD
        rows = [(id, RETRY, payload, began, 2000) for id in ids or [row[0] for row in claim.rows]]
        self.room.supervisor.results.take(self.hand.member, Results(claim.epoch, rows))

    def dies(self, claim: Claim, why: str = "") -> None:
        """The worker dies in the first step of a claim; another takes its place."""
        self.hand.slot.begin(0, claim.rows[0][0], claim.epoch)
        self.hand.member.why = why
        self.room.supervisor._lost(self.hand.member, Death(9, 0))
        self.room.supervisor.committer.settle()
        self.hand = Hand(self.room, self.function, 3)

    def passes(self, seconds: float) -> None:
        clock = self.room.supervisor.clock
        assert isinstance(clock, Clock)
        clock.micros += int(seconds * SECOND)
        self.room.supervisor.alarms.run(clock.now())


def test_a_failure_and_its_due_time_are_on_record_and_nobody_is_told(room: Room, clock: Clock) -> None:
    scene = Scene(room, **POLICY)
    [step] = scene.ids
    scene.fails(scene.claim, delay=1.5, began=clock.now() - SECOND)
    attempts = room.rows("SELECT step, attempt, outcome, charged, cause, began_at FROM dq_attempt")
    assert attempts == [(step, 1, "failed", 0, "ValueError: no luck", clock.now() - SECOND)]
    assert room.rows("SELECT step, due_at FROM dq_term") == [(step, clock.now() + 1_500_000)]
    assert room.rows("SELECT count(*) FROM dq_claim") == [(0,)]
    assert room.rows("SELECT state, attempt FROM dq_steps") == [("pending", 1)]
    assert not scene.guest.hears(Results)
    assert not scene.hand.member.claims
    scene.passes(1.4)
    room.turn()
    assert not scene.hand.claims()
    scene.passes(0.2)
    claim = scene.given()
    assert [row[:2] for row in claim.rows] == [(step, 2)]
    assert claim.tries == [Try(step, 1, clock.now() - 2_600_000, b"", b"")]


def test_the_others_of_a_claim_are_not_touched(room: Room) -> None:
    scene = Scene(room, 4, cost=1000, **POLICY)
    first, second, third, fourth = scene.ids
    scene.fails(scene.claim, second, delay=60)
    assert room.rows("SELECT steps FROM dq_claim") == [(f"[[{first},1],[{third},1],[{fourth},1]]",)]
    rows = [(first, 0, b"result", 1, 1), (third, RETRY, DELAY.pack(60 * SECOND) + TOLD, 1, 1), (fourth, 0, b"r", 1, 1)]
    room.supervisor.results.take(scene.hand.member, Results(scene.claim.epoch, rows))
    assert room.rows("SELECT step FROM dq_result ORDER BY step") == [(first,), (fourth,)]
    assert [row[0] for result in scene.guest.hears(Results) for row in result.rows] == [first, fourth]
    assert room.rows("SELECT step, outcome FROM dq_attempt ORDER BY step") == [(second, "failed"), (third, "failed")]
    assert room.rows("SELECT count(*) FROM dq_claim") == [(0,)]
    assert (room.supervisor.scheduler.claimed, scene.hand.member.outstanding) == (0, 0)


def test_a_successor_keeps_the_due_time_and_the_count(tmp_path: Path, clock: Clock) -> None:
    with open_room(tmp_path, clock=clock) as room:
        scene = Scene(room, **POLICY)
        scene.fails(scene.claim, delay=1, began=clock.now() - SECOND)
        scene.passes(2)
        scene.dies(scene.given())
        scene.fails(scene.given(), delay=10, began=clock.now() - SECOND)
        room.supervisor.committer.settle()
        [step] = scene.ids
    clock.micros += 4 * SECOND
    with open_room(tmp_path, clock=clock) as room:
        function = room.function(**POLICY)
        hand = Hand(room, function, 3)
        room.turn()
        assert not hand.claims()
        clock.micros += 7 * SECOND
        room.supervisor.alarms.run(clock.now())
        room.turn()
        [claim] = hand.claims()
        assert [row[:2] for row in claim.rows] == [(step, 4)]
        assert [(tried.failures, clock.now() - tried.since) for tried in claim.tries] == [(2, 14 * SECOND)]
        assert room.supervisor.ledger.crashes == {step: 1}


def test_a_batch_of_two_functions_keeps_its_due_times(tmp_path: Path, clock: Clock) -> None:
    with open_room(tmp_path, clock=clock) as room:
        scene = Scene(room, **POLICY)
        functions = [room.function(**POLICY), room.function("m:g", **POLICY)]
        scene.guest.client.functions = {function.id: function for function in functions}
        first, _ = room.supervisor.clients._lease_to(scene.guest.client)
        scene.guest.says(Submit([(first + n, function.id, b"args") for n, function in enumerate(functions)]))
        scene.hand.finishes(scene.claim)
        scene.fails(scene.given(), delay=10)
        room.supervisor.committer.settle()
    with open_room(tmp_path, clock=clock) as room:
        hand = Hand(room, room.function(**POLICY), 3)
        room.turn()
        assert hand.ids() == [first + 1]
        assert list(room.supervisor.delays._held) == [first]


def timed_out(scene: Scene, stack: str = "") -> None:
    """The supervisor kills the worker, since the step took too long."""
    supervisor, claim = scene.room.supervisor, scene.claim
    step = claim.rows[0][0]
    scene.hand.slot.begin(0, step, claim.epoch)
    began = supervisor.limits._begun(scene.hand.member)
    assert began is None, "a body that has not said when it began is not held to anything"
    scene.hand.slot.time(step, 1)
    began = supervisor.limits._begun(scene.hand.member)
    assert began is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor.staff, "kill", lambda member, why: setattr(member, "why", why))
        supervisor.limits._end(scene.hand.member, *began)
    assert scene.hand.member.why == "timed out"
    supervisor._lost(scene.hand.member, Death(9, 0, stack))


def test_too_long_without_a_policy_is_the_end(room: Room) -> None:
    scene = Scene(room, 3, cost=1000, timeout=500_000)
    stack = 'Current thread 0x1:\n  File "/home/me/flows.py", line 7 in spin\n  File "/x/dq/executor/envelope.py", line 1 in b'
    timed_out(scene, stack)
    attempts = room.rows("SELECT attempt, outcome, charged, cause FROM dq_attempt")
    where = '  File "/home/me/flows.py", line 7 in spin'
    assert attempts == [(1, "timed_out", 0, f"it took longer than its limit of 0.5 s; it was at:\n{where}")]
    [result] = scene.guest.hears(Results)
    [(step, status, payload, _, _)] = result.rows
    assert (step, status) == (scene.ids[0], FAILED)
    error = failures.restore(payload)
    assert isinstance(error, StepTimeout)
    assert "m:f was killed with its process: it took longer than its limit of 0.5 s" in str(error)
    assert where in str(error)
    scene.hand = Hand(room, scene.function, 4)
    room.turn()
    others = [row[:2] for claim in scene.hand.claims() for row in claim.rows]
    assert others == [(id, 1) for id in scene.ids[1:]], "they go on, uncharged"


def test_too_long_under_a_policy_is_judged_by_the_next_worker(tmp_path: Path, clock: Clock) -> None:
    with open_room(tmp_path, clock=clock) as room:
        scene = Scene(room, timeout=500_000, **POLICY)
        timed_out(scene)
        scene.hand = Hand(room, scene.function, 4)
        scene.claim = scene.given()
        assert [row[:2] for row in scene.claim.rows] == [(scene.ids[0], 1)]
        [tried] = scene.claim.tries
        assert tried.failures == 1
        assert isinstance(failures.restore(tried.verdict), StepTimeout)
        room.supervisor.committer.settle()
    with open_room(tmp_path, clock=clock) as room:
        hand = Hand(room, room.function(timeout=500_000, **POLICY), 3)
        room.turn()
        [claim] = hand.claims()
        assert claim.tries == [tried], "a successor asks for the judgement that its predecessor has not got"
        assert claim.rows[0][:2] == (scene.ids[0], 1)
        row = (scene.ids[0], RETRY, DELAY.pack(0) + tried.verdict, 1, 1)
        room.supervisor.results.take(hand.member, Results(claim.epoch, [row]))
        assert room.rows("SELECT outcome FROM dq_attempt") == [("timed_out",)], "a judgement is no attempt"
        clock.micros += 2
        room.supervisor.alarms.run(clock.now())
        room.turn()
        [claim] = hand.claims()
        assert [row[:2] for row in claim.rows] == [(scene.ids[0], 2)]
        assert claim.tries == [tried.__class__(scene.ids[0], 1, tried.since, b"", b"")]
        room.supervisor.committer.settle()
    with open_room(tmp_path, clock=clock) as room:
        hand = Hand(room, room.function(timeout=500_000, **POLICY), 3)
        room.turn()
        [claim] = hand.claims()
        assert [tried.verdict for tried in claim.tries] == [b""], "nor twice"


@pytest.mark.parametrize(("told", "word"), [({"timeout": 1}, "timeout"), ({"memory": 1 << 20}, "memory")])
def test_a_limit_that_the_executor_cannot_keep_is_refused(room: Room, told: dict[str, Any], word: str) -> None:
    room.supervisor.scheduler.add_pool("io", "thread:4", 1, 4, Capability.PID_LIVENESS)
    function = room.function(executor="io", **told)
    guest = Guest(room)
    guest.submits(function, 1)
    room.supervisor.committer.settle()
    [result] = guest.hears(Results)
    assert result.rows[0][1] == FAILED
    text = str(failures.restore(result.rows[0][2]))
    assert f"({word})" in text
    assert "'io' (thread:4)" in text
    assert "'cpu'" in text


def test_the_first_crash_is_the_last_where_it_should_be(room: Room) -> None:
    scene = Scene(room, on_crash="fail")
    scene.dies(scene.claim)
    [result] = scene.guest.hears(Results)
    error = failures.restore(result.rows[0][2])
    assert isinstance(error, StepCrashed)
    assert 'its on_crash is "fail"' in str(error)
    assert room.rows("SELECT state FROM dq_result") == [("dead",)]
    assert not room.supervisor.ledger.crashes


def test_who_is_killed_for_anothers_sake_is_not_failed(room: Room) -> None:
    scene = Scene(room, on_crash="fail")
    scene.dies(scene.claim, "cancelled")
    assert [row[:2] for row in scene.given().rows] == [(scene.ids[0], 2)]


def test_the_evidence_names_the_memory_limit(room: Room) -> None:
    scene = Scene(room, memory=64 << 20)
    scene.dies(scene.claim)
    [(cause,)] = room.rows("SELECT cause FROM dq_attempt")
    assert f"it may have had {64 << 20} bytes more" in cause


def asks(scene: Scene, message: Release) -> Done | Refused:
    scene.guest.says(message)
    scene.room.supervisor.committer.settle()
    [answer] = scene.guest.hears(Done, Refused)
    assert answer.ticket == message.ticket
    return answer  # type: ignore[no-any-return]


def test_a_parked_step_waits_until_somebody_says_so(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_room(tmp_path, clock=clock) as room:
        notices: list[str] = []
        monkeypatch.setattr(room.supervisor, "notice", notices.append)
        scene = Scene(room, on_crash="park", max_crashes=1)
        [step] = scene.ids
        scene.dies(scene.claim)
        assert f"dq retry {step}" in notices[0]
        assert room.rows("SELECT due_at FROM dq_term") == [(FAR,)]
        assert room.rows("SELECT state FROM dq_steps") == [("pending",)]
        assert not room.supervisor.alarms, "nobody wakes for it"
    with open_room(tmp_path, clock=clock) as room:
        scene.room, scene.guest = room, Guest(room)
        scene.hand = Hand(room, room.function(on_crash="park", max_crashes=1), 3)
        room.turn()
        assert not scene.hand.claims()
        assert asks(scene, Release(7, step)).text == f"step {step} begins as soon as a worker is free"
        assert room.rows("SELECT due_at FROM dq_term") == [(clock.now(),)]
        claim = scene.given()
        assert [row[:2] for row in claim.rows] == [(step, 2)]
        assert asks(scene, Release(8, step)).text == f"step {step} waits for nothing but a worker"
        scene.hand.finishes(claim)
        refused = asks(scene, Release(9, step))
        assert isinstance(refused, Refused)
        assert "is completed" in refused.text
        refused = asks(scene, Release(10, step + 5000))
        assert isinstance(refused, Refused)
        assert refused.error == "NoSuchStep"


def test_a_release_reaches_a_step_that_is_in_the_file_only(tmp_path: Path, clock: Clock) -> None:
    with open_room(tmp_path, clock=clock) as room:
        scene = Scene(room, on_crash="park")
        scene.dies(scene.claim)
    with open_room(tmp_path, clock=clock) as room:
        scene.room, scene.guest = room, Guest(room)
        assert not room.supervisor.delays._held, "nothing was read yet"
        asks(scene, Release(7, scene.ids[0]))
        scene.hand = Hand(room, room.function(on_crash="park"), 3)
        assert [row[:2] for row in scene.given().rows] == [(scene.ids[0], 2)]


def test_a_step_that_waits_for_its_next_attempt_can_be_cancelled(room: Room) -> None:
    scene = Scene(room, **POLICY)
    room.supervisor.attempts.progress(scene.hand.member, Progress(scene.claim.epoch, scene.ids[0], b"half"))
    scene.fails(scene.claim, delay=60)
    scene.guest.says(Cancel(4, scene.ids))
    assert room.rows("SELECT state FROM dq_result") == [("cancelled",)]
    assert [answer.steps for answer in scene.guest.hears(CancelDone)] == [scene.ids]
    assert room.rows("SELECT count(*) FROM dq_progress") == [(0,)]
    assert not room.supervisor.ledger.tried
    assert not room.supervisor.ledger.cursors


def test_a_cursor_counts_while_its_claim_is_open(tmp_path: Path, clock: Clock) -> None:
    with open_room(tmp_path, clock=clock) as room:
        scene = Scene(room)
        [step] = scene.ids
        for cursor in (b"one", b"two"):
            room.supervisor.attempts.progress(scene.hand.member, Progress(scene.claim.epoch, step, cursor))
        room.supervisor.attempts.progress(scene.hand.member, Progress(scene.claim.epoch + 1, step, b"stale"))
        room.supervisor.attempts.progress(scene.hand.member, Progress(scene.claim.epoch, step + 1, b"stale"))
        assert len(room.supervisor.committer.group.progress) == 1
        assert room.rows("SELECT step, cursor FROM dq_progress") == [(step, b"two")]
        assert room.supervisor.scheduler.stale == 2
        scene.dies(scene.claim)
        assert scene.given().tries == [Try(step, 0, 0, b"two", b"")]
        room.supervisor.committer.settle()
    with open_room(tmp_path, clock=clock) as room:
        scene.room, scene.hand = room, Hand(room, room.function(), 3)
        claim = scene.given()
        assert claim.tries == [Try(step, 0, 0, b"two", b"")]
        room.supervisor.attempts.progress(scene.hand.member, Progress(claim.epoch, step, b"three"))
        scene.hand.finishes(claim)
        assert room.rows("SELECT count(*) FROM dq_progress") == [(0,)], "written and deleted in one group"
        assert not room.supervisor.ledger.cursors


@pytest.mark.parametrize("payload", [b"", DELAY.pack(5), DELAY.pack(5) + b"garbage", DELAY.pack(1 << 63) + TOLD])
def test_garbage_ends_the_worker_and_changes_nothing(room: Room, payload: bytes) -> None:
    scene = Scene(room, **POLICY)
    told = Results(scene.claim.epoch, [(scene.ids[0], RETRY, payload, 1, 1)])
    killed: list[str] = []
    room.supervisor.staff.kill = lambda member, why: killed.append(why)  # type: ignore[method-assign]
    room.supervisor._hear_member(scene.hand.member, lambda: [told])
    assert "makes no sense" in killed[0]
    assert list(scene.hand.member.claims[scene.claim.epoch].open) == scene.ids
    assert room.rows("SELECT count(*) FROM dq_attempt") == [(0,)]
