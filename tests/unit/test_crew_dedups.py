"""Steps with one word are one step: one body runs, and all of them get its result, whoever dies meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.crew.ledger import Function, Run
from dq.executor.frames import Adopt, Cancel, CancelDone, Resubmit, Results, Term
from dq.flow.queue import Queue
from dq.model.states import COMPLETED
from tests.unit.crewroom import Guest, Room, open_room
from tests.unit.queueroom import SECOND, Gang, Watch, step, submits

WORD = {"dedup": "order-7"}
FOR_A_MINUTE = WORD | {"dedup_for": 60 * SECOND}


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def room(tmp_path: Path, watch: Watch) -> Iterator[Room]:
    with open_room(tmp_path, clock=watch) as room:
        yield room


def told(guest: Guest) -> dict[int, tuple[int, bytes]]:
    """What a client has heard: (status, payload) by step."""
    guest._room.supervisor.committer.settle()
    return {row[0]: (row[1], row[2]) for message in guest.hears(Results) for row in message.rows}


DONE = (COMPLETED, b"result")


def test_a_second_one_gets_the_result_of_the_first(room: Room) -> None:
    function = step(room)
    gang, one, two = Gang(room, function, 2), Guest(room), Guest(room)
    [first] = submits(one, function, WORD)
    assert gang.turn() == [first]
    second, other = submits(two, function, WORD, {"dedup": "order-8"})
    assert gang.turn() == [other]
    assert told(two) == {}
    gang.finishes(first)
    assert told(one) == {first: DONE}
    assert told(two) == {second: DONE}
    assert room.rows("SELECT step, attempt FROM dq_result ORDER BY step") == [(first, 1), (second, 0)]
    [again] = submits(two, function, WORD)
    assert gang.turn() == [again], "the first has ended, so this is another one"


def test_all_of_one_frame_are_one(room: Room) -> None:
    function = step(room)
    gang, guest = Gang(room, function, 2), Guest(room)
    ids = submits(guest, function, *[WORD] * 5)
    assert gang.turn() == ids[:1]
    gang.finishes(ids[0])
    assert told(guest) == dict.fromkeys(ids, DONE)
    assert room.rows("SELECT count(*) FROM dq_batch") == [(0,)]
    assert not room.supervisor.dedups.open
    assert not room.supervisor.dedups._firsts


def test_functions_have_their_words_for_themselves(room: Room) -> None:
    one, two = step(room), step(room, name="m:g")
    gang, guest = Gang(room, one, 2), Guest(room)
    ids = [*submits(guest, one, WORD), *submits(guest, two, WORD)]
    assert sorted(gang.turn()) == ids
    again = step(room, version="with other options")
    submits(guest, again, WORD)
    assert gang.turn() == []


@pytest.mark.parametrize("boots", [1, 2])
def test_who_waits_for_another_waits_on_in_the_next_supervisor(tmp_path: Path, watch: Watch, boots: int) -> None:
    with open_room(tmp_path, clock=watch) as room:
        function = step(room)
        gang, guest = Gang(room, function, 2), Guest(room)
        first, *others = submits(guest, function, WORD, WORD, WORD)
        assert gang.turn() == [first]
        room.supervisor.committer.settle()
    for _ in range(boots - 1):
        with open_room(tmp_path, clock=watch) as room:
            assert Gang(room, step(room), 2).turn() == [first]
    with open_room(tmp_path, clock=watch) as room:
        function = step(room)
        gang, guest = Gang(room, function, 2), Guest(room)
        guest.client.functions[function.id] = function
        guest.says(Adopt([first, others[0]], []))
        guest.says(Resubmit([(others[1], function.id, b"")], [Term(others[1], dedup="order-7")]))
        [late] = submits(guest, function, WORD)
        assert gang.turn() == [first]
        gang.finishes(first)
        assert told(guest) == dict.fromkeys([first, *others, late], DONE)
        assert gang.turn() == []


@pytest.mark.parametrize("reboot", [False, True], ids=["", "after a kill"])
def test_for_a_while_it_is_the_same_though_it_has_ended(tmp_path: Path, watch: Watch, reboot: bool) -> None:
    with open_room(tmp_path, clock=watch) as room:
        function = step(room)
        gang, guest = Gang(room, function, 2), Guest(room)
        [first] = submits(guest, function, FOR_A_MINUTE)
        gang.turn()
        gang.finishes(first)
        [at_once] = submits(guest, function, WORD)
        assert told(guest) == dict.fromkeys([first, at_once], DONE)
        if not reboot:
            later(room, gang, guest, function, watch)
    if reboot:
        with open_room(tmp_path, clock=watch) as room:
            function = step(room)
            later(room, Gang(room, function, 2), Guest(room), function, watch)


def later(room: Room, gang: Gang, guest: Guest, function: Function, watch: Watch) -> None:
    watch.passes(room, 59)
    [second] = submits(guest, function, FOR_A_MINUTE)
    assert gang.turn() == []
    assert told(guest) == {second: DONE}
    watch.passes(room, 2)
    [third] = submits(guest, function, WORD)
    assert gang.turn() == [third], "it is counted from the first one's submission"


def test_what_was_tidied_up_is_not_the_same_as_anything(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    function = step(room)
    gang, guest = Gang(room, function, 2), Guest(room)
    [first] = submits(guest, function, FOR_A_MINUTE)
    gang.turn()
    gang.finishes(first)
    room.supervisor.committer.settle()
    monkeypatch.setattr(room.supervisor.store, "results", lambda _ids: [])
    [second] = submits(guest, function, FOR_A_MINUTE)
    assert gang.turn() == [second]


def test_a_client_without_workers_behind_it_finds_the_first_too(tmp_path: Path, watch: Watch) -> None:
    with open_room(tmp_path, clock=watch) as room:
        function = step(room)
        [first] = submits(Guest(room), function, WORD)
        room.supervisor.committer.settle()
    with open_room(tmp_path, clock=watch, workers=0) as room:
        function = step(room)
        guest = Guest(room)
        [second] = submits(guest, function, WORD)
        [lone] = submits(guest, function, {"dedup": "x"})
        [follows] = submits(guest, function, {"dedup": "x"})
        room.supervisor.committer.settle()
    with open_room(tmp_path, clock=watch) as room:
        gang = Gang(room, step(room), 2)
        assert sorted(gang.turn()) == [first, lone]
        gang.finishes(first, lone)
        assert room.rows("SELECT step FROM dq_result ORDER BY step") == sorted(
            [(first,), (second,), (lone,), (follows,)]
        )


def test_when_the_first_is_cancelled_another_runs_in_its_place(room: Room) -> None:
    function = step(room)
    gang, one, two = Gang(room, function, 1), Guest(room), Guest(room)
    [busy] = submits(one, step(room, name="m:g"), {})
    gang.turn()
    [first] = submits(one, function, WORD)
    second, third, fourth = submits(two, function, WORD, WORD, WORD)
    one.says(Cancel(1, [first]))
    two.says(Cancel(2, [third]))
    room.supervisor.committer.settle()
    assert one.hears(CancelDone) == [CancelDone(1, [first])]
    assert two.hears(CancelDone) == [CancelDone(2, [third])]
    gang.finishes(busy)
    assert gang.turn() == [second]
    gang.finishes(second)
    assert told(two) == {second: DONE, fourth: DONE}
    assert room.rows(f"SELECT same_as FROM dq_term WHERE step = {fourth}") == [(second,)]


def test_the_heir_of_a_cancelled_one_outlives_a_kill(tmp_path: Path, watch: Watch) -> None:
    with open_room(tmp_path, clock=watch) as room:
        function = step(room, Queue("q", concurrency=1))
        guest = Guest(room)
        first, second, third = submits(guest, function, *[WORD | {"priority": 2}] * 3)
        guest.says(Cancel(1, [first]))
        room.supervisor.committer.settle()
    with open_room(tmp_path, clock=watch) as room:
        gang = Gang(room, step(room, Queue("q", concurrency=1)), 2)
        assert gang.turn() == [second]
        gang.finishes(second)
        assert gang.turn() == []
        assert room.rows("SELECT step, state FROM dq_result ORDER BY step") == [
            (first, "cancelled"), (second, "completed"), (third, "completed")
        ]  # fmt: skip


def test_a_failure_that_killed_its_workers_is_everybodys(room: Room) -> None:
    function = step(room)
    gang, guest = Gang(room, function, 4), Guest(room)
    first, second = submits(guest, function, WORD, WORD)
    for _ in range(3):
        assert gang.turn() == [first]
        gang.dies(gang.open[first][0])
    outcomes = told(guest)
    assert outcomes[first] == outcomes[second]
    assert room.rows("SELECT state FROM dq_result") == [("dead",)] * 2


def test_delayed_ones_are_one_too(room: Room, watch: Watch) -> None:
    function = step(room)
    gang, guest = Gang(room, function, 2), Guest(room)
    [first] = submits(guest, function, WORD | {"after": 10 * SECOND})
    [second] = submits(guest, function, WORD)
    assert gang.turn() == []
    watch.passes(room, 11)
    assert gang.turn() == [first]
    gang.finishes(first)
    assert told(guest) == {first: DONE, second: DONE}


CALM = WORD | {"debounce": 10 * SECOND}


def test_the_last_of_a_burst_runs_for_all(room: Room, watch: Watch) -> None:
    function = step(room)
    gang, guest, other = Gang(room, function, 2), Guest(room), Guest(room)
    first, second = submits(guest, function, CALM, CALM)
    watch.passes(room, 8)
    [last] = submits(other, function, CALM)
    watch.passes(room, 8)
    assert gang.turn() == [], "each of them has the others wait anew"
    [follower] = submits(guest, function, WORD)
    watch.passes(room, 3)
    assert gang.turn() == [last]
    [later] = submits(guest, function, CALM)
    gang.finishes(last)
    assert told(guest) == dict.fromkeys([first, second, follower], DONE)
    assert told(other) == {last: DONE}
    watch.passes(room, 11)
    assert gang.turn() == [later], "what comes after the begin is a burst of its own"
    gang.finishes(later)
    assert not room.supervisor.dedups.open


@pytest.mark.parametrize("workers", [0, 2])
def test_a_burst_goes_on_in_the_next_supervisor(tmp_path: Path, watch: Watch, workers: int) -> None:
    with open_room(tmp_path, clock=watch) as room:
        first, second = submits(Guest(room), step(room), CALM, CALM)
        room.supervisor.committer.settle()
    watch.micros += 5 * SECOND
    with open_room(tmp_path, clock=watch, workers=workers) as room:
        third, fourth = submits(Guest(room), step(room), CALM, CALM)
        room.supervisor.committer.settle()
    watch.micros += 6 * SECOND
    with open_room(tmp_path, clock=watch) as room:
        gang = Gang(room, step(room), 2)
        watch.passes(room, 0)
        assert gang.turn() == []
        watch.passes(room, 5)
        assert gang.turn() == [fourth]
        gang.finishes(fourth)
        assert gang.turn() == []
        assert room.rows("SELECT step FROM dq_result ORDER BY step") == [(first,), (second,), (third,), (fourth,)]


def flow(room: Room, name: str) -> Run:
    ledger = room.supervisor.ledger
    id, _ = ledger.lease()
    return ledger.start(id, name, room.function("m:w"), b"", b"")


def asks(room: Room, run: Run, function: Function, id: int, occurrence: int = 0) -> None:
    """A step of a run that has the word, as its host asks for it."""
    sup = room.supervisor
    sup.committer.group.flow_steps.append((id, run.id, function.id, "", occurrence, b"", b"args", 0))
    sup.committer.dirty = True
    run.open += 1
    sup.ledger.flow[id] = run
    for row in sup.terms.take([(id, 1, function.id, b"args")], None, {id: Term(id, dedup="order-7")}):
        lane = sup.scheduler.lane(function)
        assert lane is not None
        sup.scheduler.enqueue(lane, -1, [row], None, run, spill=False)


@pytest.mark.parametrize("reboot", [False, True], ids=["", "after a kill"])
def test_each_run_has_the_step_on_its_own_record(tmp_path: Path, watch: Watch, reboot: bool) -> None:
    with open_room(tmp_path, clock=watch) as room:
        function = step(room)
        one, two = flow(room, "one"), flow(room, "two")
        first, _ = room.supervisor.ledger.lease()
        second, third = first + 1, first + 2
        asks(room, one, function, first)
        asks(room, two, function, second)
        asks(room, one, function, third, occurrence=1)
        room.supervisor.committer.settle()
        if not reboot:
            finished(room, function, first, second, third)
    if reboot:
        with open_room(tmp_path, clock=watch) as room:
            finished(room, step(room), first, second, third)


def finished(room: Room, function: Function, first: int, second: int, third: int) -> None:
    gang = Gang(room, function, 2)
    runs = {run.name: run for run in room.supervisor.ledger.runs.values()}
    assert (runs["one"].open, runs["two"].open) == (2, 1)
    assert gang.turn() == [first]
    gang.finishes(first)
    assert gang.turn() == []
    assert (runs["one"].open, runs["two"].open) == (0, 0)
    assert room.rows("SELECT step, seq, state FROM dq_result ORDER BY step") == [
        (first, 1, "completed"), (second, 1, "completed"), (third, 2, "completed")
    ]  # fmt: skip


def test_a_run_that_is_cancelled_takes_no_other_run_along(room: Room) -> None:
    function = step(room)
    gang = Gang(room, function, 1)
    one, two = flow(room, "one"), flow(room, "two")
    first, _ = room.supervisor.ledger.lease()
    asks(room, one, function, first)
    asks(room, two, function, first + 1)
    room.supervisor.committer.settle()
    room.supervisor.cancels.steps(one, [first])
    assert (one.open, two.open) == (0, 1)
    assert gang.turn() == [first + 1]
    room.supervisor.cancels.steps(two, [first + 1])
    assert room.supervisor.results.doomed.keys() == {first + 1}
    assert room.rows("SELECT step, state FROM dq_result") == [(first, "cancelled")]
