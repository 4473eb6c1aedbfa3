"""Dead letters, as a supervisor answers for them: retried once, discarded, refused with a reason."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dq.crew.chores import Chores
from dq.crew.letters import Letters
from dq.crew.results import failure
from dq.crew.withdrawals import withdraw
from dq.errors import StepCrashed
from dq.executor.frames import Dead, Discard, Done, ListDead, Refused, Results, RetryStep, Submit, Term
from dq.model.states import COMPLETED, DEAD, FAILED, RunState
from tests.unit.crewroom import Guest, Hand, Room, open_room

BAD = failure(StepCrashed("it died"))


def ended(room: Room, guest: Guest, status: int, count: int = 1, terms: list[Term] | None = None) -> list[int]:
    """Steps submitted alone that have ended so."""
    function = room.function(cost=1000)
    first, _ = room.supervisor.clients._lease_to(guest.client)
    guest.client.functions[function.id] = function
    ids = list(range(first, first + count))
    named = [Term(ids[0], priority=term.priority, key=term.key, after=term.after) for term in terms or ()]
    guest.says(Submit([(id, function.id, b"args") for id in ids], named))
    for row, batch in withdraw(room.supervisor, guest.peer, set(ids)):
        room.supervisor.results.settle([row], batch, status, BAD)
    room.supervisor.committer.settle()
    guest.link.poll()
    return ids


def new_id(room: Room, guest: Guest) -> int:
    return room.supervisor.clients._lease_to(guest.client)[0]


def listed(room: Room, guest: Guest, *, all: bool = False, limit: int = 100) -> list[tuple[int, str]]:
    chores = Chores(room.supervisor.clock, room.supervisor.timers, lambda: False)
    Letters(room.supervisor, room.supervisor.clients, chores)._asked(guest.client, ListDead(1, all, limit))
    while len(chores):
        room.supervisor.timers.run(time.monotonic())
    room.supervisor.committer.settle()
    [told] = guest.hears(Dead)
    return [(letter.id, letter.state) for letter in told.letters]


def test_a_retry_is_a_new_step_whose_result_comes_to_who_asked(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        guest = Guest(room)
        [old] = ended(room, guest, DEAD)
        assert listed(room, guest) == [(old, "open")]
        new = new_id(room, guest)
        guest.says(RetryStep(3, new, old))
        hand = Hand(room, room.function(), 3)
        room.turn()
        [claim] = hand.claims()
        assert [(row[0], row[1], row[3]) for row in claim.rows] == [(new, 1, b"args")]
        hand.finishes(claim)
        room.supervisor.committer.settle()
        heard = guest.hears(Done, Results)
        assert [type(message) for message in heard] == [Done, Results]
        assert heard[1].rows[0][:3] == (new, COMPLETED, b"result")
        assert listed(room, guest) == []
        assert listed(room, guest, all=True) == [(old, "retried")]
        assert room.rows("SELECT id, state, successor FROM dq_letter") == [(old, "retried", new)]


def test_the_same_retry_again_is_one_and_another_one_is_refused(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        guest = Guest(room)
        [old] = ended(room, guest, FAILED)
        new = new_id(room, guest)
        guest.says(RetryStep(3, new, old))
        guest.says(RetryStep(3, new, old))
        guest.says(RetryStep(4, new + 1, old))
        room.supervisor.committer.settle()
        told = guest.hears(Done, Refused)
        assert [type(message) for message in told] == [Done, Done, Refused]
        assert f"as step {new}" in told[2].text
        assert room.rows("SELECT id FROM dq_step WHERE id > 1 ORDER BY id") == [(new,)]


def test_a_retry_that_is_asked_for_again_after_its_end_brings_its_result(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        guest = Guest(room)
        [old] = ended(room, guest, FAILED)
        new = new_id(room, guest)
        guest.says(RetryStep(3, new, old))
        [(row, batch)] = withdraw(room.supervisor, guest.peer, {new})
        room.supervisor.clients.gone(guest.client)
        room.supervisor.results.settle([row], batch, COMPLETED, b"result")
        room.supervisor.committer.settle()
        back = Guest(room)
        back.says(RetryStep(3, new, old))
        room.supervisor.committer.settle()
        done, results = back.hears(Done, Results)
        assert (done.ticket, results.rows[0][:3]) == (3, (new, COMPLETED, b"result"))


def test_a_retry_keeps_priority_and_key_and_not_the_delay(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        guest = Guest(room)
        [old] = ended(room, guest, FAILED, terms=[Term(0, priority=7, key="k", after=1)])
        new = new_id(room, guest)
        guest.says(RetryStep(3, new, old))
        assert room.rows(f"SELECT priority, key, due_at FROM dq_term WHERE step = {new}") == [(7, "k", None)]


@pytest.mark.parametrize(
    ("status", "step", "why"),
    [(COMPLETED, 0, "is completed"), (None, 0, "is not ended"), (FAILED, 5000, "there is no step")],
    ids=["completed", "open", "unknown"],
)
def test_what_is_no_dead_letter_is_neither_retried_nor_discarded(
    tmp_path: Path, status: int | None, step: int, why: str
) -> None:
    with open_room(tmp_path) as room:
        guest = Guest(room)
        if status is None:
            [old] = guest.submits(room.function(), 1)
        else:
            [old] = ended(room, guest, status)
        guest.says(RetryStep(3, new_id(room, guest), step or old))
        guest.says(Discard(4, "", step or old))
        room.supervisor.committer.settle()
        told = guest.hears(Refused)
        assert [message.error for message in told] == ["NoSuchLetter"] * 2
        assert all(why in message.text for message in told)


def test_a_step_of_a_run_is_retried_with_its_run(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        guest, ledger = Guest(room), room.supervisor.ledger
        first, _ = ledger.lease()
        run = ledger.start(first, "my run", room.function(), b"p", b"f" * 16)
        room.supervisor.committer.group.flow_steps.append((first + 1, first, 1, "0", 0, b"g" * 16, b"args", 1))
        room.supervisor.committer.group.results.append((first + 1, 1, "dead", 1, 0, 0, 1, 1, BAD))
        ledger.change(run, RunState.FAILED, BAD)
        room.supervisor.committer.settle()
        guest.says(RetryStep(3, new_id(room, guest), first + 1))
        room.supervisor.committer.settle()
        [told] = guest.hears(Refused)
        assert "dq dead retry 'my run'" in told.text
        guest.says(Discard(4, "my run", 0))
        room.supervisor.committer.settle()
        [done] = guest.hears(Done)
        assert done.text == "run my run is discarded"
        assert listed(room, guest) == []
        assert listed(room, guest, all=True) == [(first, "discarded"), (first + 1, "discarded")]


def test_a_discard_may_come_twice_and_does_not_undo_a_retry(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        guest = Guest(room)
        one, two = ended(room, guest, FAILED, 2)
        guest.says(Discard(3, "", one))
        guest.says(Discard(4, "", one))
        guest.says(RetryStep(5, new_id(room, guest), two))
        guest.says(Discard(6, "", two))
        guest.says(RetryStep(7, new_id(room, guest), one))
        room.supervisor.committer.settle()
        told = [message.text.rsplit(" is ")[-1] for message in guest.hears(Done)]
        assert [text.split(" ")[0] for text in told] == ["discarded", "discarded", "tried", "retried", "tried"]


def test_without_workers_a_retry_waits_for_somebody_who_has_some(tmp_path: Path) -> None:
    with open_room(tmp_path, workers=2) as room:
        [old] = ended(room, Guest(room), DEAD)
    with open_room(tmp_path, workers=0) as room:
        guest = Guest(room)
        new = new_id(room, guest)
        guest.says(RetryStep(3, new, old))
        room.supervisor.committer.settle()
        assert guest.hears(Done)
    with open_room(tmp_path) as room:
        hand = Hand(room, room.function(), 3)
        room.turn()
        assert hand.ids() == [new]


def test_the_latest_are_listed_first_and_no_more_than_wanted(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        guest = Guest(room)
        ids = [ended(room, guest, FAILED)[0] for _ in range(5)]
        assert [id for id, _ in listed(room, guest, limit=3)] == ids[:1:-1]
