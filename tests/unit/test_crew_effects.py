"""Completions with effects: one transaction for all of it, and a failed attempt where it can't be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dq import errors
from dq.crew.ledger import Function
from dq.executor import failures
from dq.executor.frames import Claim, Define, Done, Effects, Execute, Refused, Results, Signal, Start, Term
from dq.model.payload import PICKLE, seal
from dq.model.states import COMPLETED, FAILED
from dq.store.store import Store
from tests.unit.crewroom import Guest, Hand, Room, open_room

_NEXT = Define(0, "m:next", "step", b"next------------", b"", "", 3)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A room with a table of a user's."""
    with open_room(tmp_path) as room:
        guest = Guest(room)
        _execute(room, guest, "CREATE TABLE account (name TEXT PRIMARY KEY, cents INTEGER CHECK (cents >= 0))")
        _execute(room, guest, "INSERT INTO account VALUES ('ann', 100)")
        yield room


def _execute(room: Room, guest: Guest, sql: str, id: int = 0) -> Any:
    first, _ = room.supervisor.clients._lease_to(guest.client)
    guest.says(Execute(7, id or first, sql, []))
    room.supervisor.committer.settle()
    [answer] = guest.hears(Done, Refused)
    return answer


def _claimed(room: Room, function: Function | None = None, count: int = 1) -> tuple[Guest, Hand, Claim]:
    """A worker that holds steps which a client has submitted."""
    function = function or room.function(cost=1000)
    guest, hand = Guest(room), Hand(room, function, len(room.supervisor.staff.members))
    guest.submits(function, count)
    room.turn()
    [claim] = hand.claims()
    assert len(claim.rows) == count
    return guest, hand, claim


def _sends(room: Room, hand: Hand, claim: Claim, *statements: str, **told: Any) -> int:
    """The body of the claim's first step has returned."""
    step = claim.rows[0][0]
    rows: list[Any] = [(statement, [], None) for statement in statements]
    fields: dict[str, Any] = {"signals": [], "defines": [], "submits": [], **told}
    room.supervisor._heard(hand.member, Effects(claim.epoch, step, b"result", 5, 1000, rows, **fields))
    return step


def _start(room: Room, guest: Guest, name: str) -> int:
    """A run that has not ended."""
    function = room.function("m:flow")
    first, _ = room.supervisor.clients._lease_to(guest.client)
    guest.client.functions[function.id] = function
    guest.says(Start(1, first, name, function.id, b"args", b"f" * 16))
    return first


def _failure(guest: Guest) -> failures.Failure:
    [message] = guest.hears(Results)
    [(_, status, payload, _, _)] = message.rows
    assert status == FAILED
    return failures.read(payload)


def test_an_effect_and_its_completion_are_one_commit(room: Room) -> None:
    guest, hand, claim = _claimed(room)
    before = room.supervisor.committer.commits
    step = _sends(room, hand, claim, "UPDATE account SET cents = 50", "INSERT INTO account VALUES ('bob', 50)")
    assert room.supervisor.committer.commits == before + 1
    assert not guest.hears(Results), "nobody is told before the sync"
    assert room.rows("SELECT cents FROM account") == [(50,), (50,)]
    assert room.rows(f"SELECT state, payload FROM dq_result WHERE step = {step}") == [("completed", b"result")]
    assert guest.hears(Results) == [Results(claim.epoch, [(step, COMPLETED, b"result", 5, 1000)])]
    assert hand.member.outstanding == 0


def test_several_share_one_sync(room: Room) -> None:
    _, hand, claim = _claimed(room, count=3)
    before = room.supervisor.committer.syncs
    for row in claim.rows:
        _sends(room, hand, Claim(claim.epoch, [row]), "UPDATE account SET cents = cents - 1")
    room.supervisor.committer.commit()
    assert room.supervisor.committer.syncs == before + 1
    assert room.rows("SELECT cents FROM account") == [(97,)]


def test_what_was_collected_before_is_not_taken_along_by_a_failure(room: Room) -> None:
    _, hand, claim = _claimed(room, count=2)
    hand.finishes(claim, claim.rows[1][0])
    _sends(room, hand, claim, "UPDATE account SET cents = -1")
    states = room.rows("SELECT step, state FROM dq_result WHERE step IN (SELECT id FROM dq_steps WHERE name = 'm:f')")
    assert states == [(claim.rows[0][0], "failed"), (claim.rows[1][0], "completed")]


def test_a_statement_that_fails_fails_the_attempt_with_its_reason(room: Room) -> None:
    guest, hand, claim = _claimed(room)
    step = _sends(room, hand, claim, "INSERT INTO account VALUES ('bob', 1)", "UPDATE account SET cents = -1")
    assert room.rows("SELECT * FROM account") == [("ann", 100)]
    [attempt] = room.rows("SELECT step, outcome, charged, cause FROM dq_attempt")
    assert attempt[:3] == (step, "failed", 0)
    assert "CHECK constraint failed: cents >= 0" in attempt[3]
    told = _failure(guest)
    assert told.type_name == "dq.errors.EffectFailed"
    assert "statement 2 of 2" in told.text
    assert hand.member.outstanding == 0
    assert room.rows("SELECT count(*) FROM dq_batch") == [(0,)]


def test_a_failure_at_the_commit_is_judged_by_the_next_worker(room: Room) -> None:
    function = room.function(cost=1000, retry=b"a policy")
    _, hand, claim = _claimed(room, function)
    step = _sends(room, hand, claim, "UPDATE account SET cents = -1")
    room.turn()
    [again] = hand.claims()
    assert [row[0] for row in again.rows] == [step]
    [tried] = again.tries
    assert (tried.step, tried.failures, tried.since) == (step, 1, 5)
    assert isinstance(failures.restore(tried.verdict), errors.EffectFailed)
    assert room.rows(f"SELECT count(*) FROM dq_result WHERE step = {step}") == [(0,)]


def test_a_statement_without_end_is_stopped(room: Room) -> None:
    guest, hand, claim = _claimed(room)
    room.supervisor.store.guard.limit = 0.02
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    _sends(room, hand, claim, endless)
    room.supervisor.committer.settle()
    assert "was stopped" in _failure(guest).text


def test_effects_under_a_claim_that_is_over_change_nothing(room: Room) -> None:
    _, hand, claim = _claimed(room)
    hand.finishes(claim)
    _sends(room, hand, claim, "DELETE FROM account")
    assert room.supervisor.scheduler.stale == 1
    assert room.rows("SELECT count(*) FROM account") == [(1,)]


def test_submitted_steps_and_signals_join_the_commit(room: Room) -> None:
    guest, hand, claim = _claimed(room)
    run = _start(room, guest, "run-1")
    room.supervisor.committer.commit()
    before = room.supervisor.committer.commits
    _sends(
        room, hand, claim,
        signals=[("run-1", "go", b"one"), ("run-1", "go", b"two")],
        defines=[_NEXT], submits=[(0, b"first"), (0, b"second")], terms=[Term(1, priority=3)],
    )  # fmt: skip
    assert room.supervisor.committer.commits == before + 1
    assert room.rows("SELECT run, name, payload FROM dq_signal ORDER BY id") == [
        (run, "go", b"one"),
        (run, "go", b"two"),
    ]
    submitted = room.rows("SELECT id, args FROM dq_step JOIN dq_steps USING (id) WHERE name = 'm:next'")
    assert [args for _, args in submitted] == [b"first", b"second"]
    assert room.rows("SELECT first, last FROM dq_batch") == [(submitted[0][0], submitted[1][0])]
    room.turn()
    assert [row[0] for given in hand.claims() for row in given.rows][:1] == [submitted[1][0]], "its priority is higher"


@pytest.mark.parametrize(("name", "kind"), [("nobody", "NoSuchRun"), ("ended", "RunEnded")])
def test_a_signal_that_nobody_can_get_fails_the_attempt(room: Room, name: str, kind: str) -> None:
    guest, hand, claim = _claimed(room)
    _start(room, guest, "ended")
    room.supervisor.cancels.run(room.supervisor.ledger.by_name["ended"], "for the test", now=True)
    room.supervisor.committer.settle()
    guest.hears()
    _sends(room, hand, claim, "DELETE FROM account", signals=[(name, "go", b"")], defines=[_NEXT], submits=[(0, b"")])
    assert room.rows("SELECT count(*) FROM account") == [(1,)]
    assert room.rows("SELECT count(*) FROM dq_signal") == [(0,)]
    assert room.rows("SELECT count(*) FROM dq_steps WHERE name = 'm:next'") == [(0,)]
    told = _failure(guest)
    assert told.type_name == f"dq.errors.{kind}"
    assert name in told.text


@pytest.mark.parametrize(
    "told", [{"submits": [(0, b"")]}, {"defines": [_NEXT], "submits": [(0, b"")], "terms": [Term(1)]}]
)
def test_places_that_point_nowhere_end_the_worker_and_change_nothing(room: Room, told: dict[str, Any]) -> None:
    _, hand, claim = _claimed(room)
    killed: list[str] = []
    room.supervisor.staff.kill = lambda member, why: killed.append(why)  # type: ignore[method-assign]
    rows: list[Any] = [("DELETE FROM account", [], None)]
    fields: dict[str, Any] = {"signals": [], "defines": [], "submits": [], **told}
    message = Effects(claim.epoch, claim.rows[0][0], b"", 5, 1, rows, **fields)
    room.supervisor._hear_member(hand.member, lambda: [message])
    assert len(killed) == 1
    assert "makes no sense" in killed[0]
    assert room.rows("SELECT count(*) FROM account") == [(1,)]


def test_with_a_full_disk_it_is_decided_once_and_written_when_there_is_room(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, hand, claim = _claimed(room)
    write, tries = Store._write, []

    def full(store: Store, db: Any, group: Any) -> int:
        tries.append(group)
        if len(tries) == 1:
            raise errors.DiskFull("no room")
        return write(store, db, group)

    monkeypatch.setattr(Store, "_write", full)
    room.supervisor.committer.wait = lambda _seconds: True
    step = _sends(room, hand, claim, "UPDATE account SET cents = cents - 1")
    assert tries[0] is tries[1]
    assert room.rows("SELECT cents FROM account") == [(99,)]
    assert room.rows(f"SELECT state FROM dq_result WHERE step = {step}") == [("completed",)]


def test_a_statement_from_outside_is_done_once_however_often_it_is_sent(room: Room) -> None:
    guest = Guest(room)
    id = room.supervisor.clients._lease_to(guest.client)[0] + 10
    changed = seal(PICKLE, b"\x80\x05K\x01.").hex()
    for _ in range(2):
        assert _execute(room, guest, "UPDATE account SET cents = cents - 1", id) == Done(7, changed)
    assert room.rows("SELECT cents FROM account") == [(99,)]
    assert room.rows(f"SELECT name, state FROM dq_steps WHERE id = {id}") == [("dq:execute", "completed")]


def test_a_statement_from_outside_that_fails_is_refused(room: Room) -> None:
    answer = _execute(room, Guest(room), "DROP TABLE dq_run")
    assert isinstance(answer, Refused)
    assert answer.error == "EffectFailed"
    assert room.rows("SELECT count(*) FROM dq_steps WHERE name = 'dq:execute'") == [(2,)]


def test_a_client_s_signal_still_finds_its_run(room: Room) -> None:
    guest = Guest(room)
    _start(room, guest, "run-1")
    first, _ = room.supervisor.clients._lease_to(guest.client)
    guest.says(Signal(3, first, "run-1", "go", b"x"))
    guest.says(Signal(4, first + 1, "run-2", "go", b"x"))
    room.supervisor.committer.settle()
    done, refused = guest.hears(Done, Refused)
    assert done == Done(3)
    assert (refused.ticket, refused.error) == (4, "NoSuchRun")
