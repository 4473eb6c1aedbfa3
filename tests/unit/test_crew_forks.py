"""Forks and retries: which part of a record is copied, under which name, and all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dq import errors
from dq.executor import failures
from dq.executor.frames import Define, Done, ForkRun, Refused
from dq.store.group import ForkRow, Group, RunRow, SignalRow, TermRow
from tests.unit.crewroom import Guest, Room, open_room

BAD = failures.pack(ValueError("bang"))
RUN = 7


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with open_room(tmp_path, workers=0) as room:
        yield room


class Record:
    """A run on record, with steps at one microsecond each."""

    def __init__(self, room: Room) -> None:
        self.room = room
        ledger = room.supervisor.ledger
        names = ("m:movie", "m:render", "m:other.stitch", "dq:wait_signal", "dq:checkpoint")
        self.numbers = {
            name: ledger.function(
                Define(
                    0,
                    name,
                    "workflow" if name == "m:movie" else "step",
                    name.encode().ljust(16),
                    b"",
                    "dq"[: 2 * name.startswith("dq:")],
                    3,
                ),
                room.context,
            ).id
            for name in names
        }
        ledger.take(RUN + 100)
        self.group.runs.append(RunRow(RUN, "movie", self.numbers["m:movie"], b"args", b"mark", 1))
        self.seq = 0
        self.asked: list[int] = []

    @property
    def group(self) -> Group:
        self.room.supervisor.committer.dirty = True
        return self.room.supervisor.committer.group

    def ask(self, name: str = "m:render", *, at: int = 10, scope: str = "0") -> int:
        id = RUN + 1 + len(self.asked)
        row = (id, RUN, self.numbers[name], scope, len(self.asked), b"print", b"args%d" % id, at)
        self.group.flow_steps.append(row)
        self.asked.append(id)
        return id

    def end(self, id: int, state: str = "completed", payload: bytes = b"result", *, at: int = 20) -> None:
        self.seq += 1
        self.group.results.append((id, self.seq, state, 1, 0, 9, at, at, payload))

    def finish(self, state: str, payload: bytes = BAD, *, at: int = 100) -> None:
        from dq.store.group import RunChange

        self.group.run_changes.append(RunChange(state, at, payload, None, RUN, "running"))

    def copied(self, run: int) -> list[tuple[Any, ...]]:
        return self.room.rows(
            "SELECT step.args, step.created_at, result.seq, result.state, result.payload FROM dq_step AS step "
            f"JOIN dq_result AS result ON result.step = step.id WHERE run = {run} ORDER BY step.id"
        )


@pytest.fixture
def record(room: Room) -> Record:
    return Record(room)


def fork(
    room: Room, step: str = "", *, retry: bool = False, name: str = "", args: bytes = b"", id: int = 0
) -> tuple[int, Any]:
    """Asks for a fork; returns its id and the answer."""
    guest = Guest(room)
    first, _ = room.supervisor.clients._lease_to(guest.client)
    id = id or first
    guest.says(ForkRun(1, id, "movie", name, step, retry, args, b"other" if args else b""))
    room.supervisor.committer.settle()
    [answer] = guest.hears(Done, Refused)
    return id, answer


def test_what_was_asked_for_before_the_step_is_copied(room: Room, record: Record) -> None:
    first, second, third = record.ask(), record.ask(), record.ask("m:other.stitch")
    for id in (second, first, third):
        record.end(id)
    record.ask()
    id, answer = fork(room, str(third))
    assert answer == Done(1, "movie~2")
    assert record.copied(id) == [
        (b"args8", 10, 2, "completed", b"result"),
        (b"args9", 10, 1, "completed", b"result"),
    ]
    assert room.rows(f"SELECT name, args, state, forked_from, origin FROM dq_run WHERE id = {id}") == [
        ("movie~2", b"args", "running", RUN, f"{RUN} 1 movie")
    ]
    assert len(record.copied(RUN)) == 3
    run = room.supervisor.ledger.runs[id]
    assert run.seq == 2
    assert id in room.supervisor.ledger.homeless


@pytest.mark.parametrize(
    ("step", "count"),
    [("m:render", 0), ("render", 0), ("render#2", 1), ("m:render#3", 3), ("stitch", 2), ("other.stitch", 2), ("", 0)],
)
def test_a_step_is_told_by_its_name(room: Room, record: Record, step: str, count: int) -> None:
    for name in ("m:render", "m:render", "m:other.stitch", "m:render"):
        record.end(record.ask(name))
    id, answer = fork(room, step)
    assert isinstance(answer, Done)
    assert len(record.copied(id)) == count


@pytest.mark.parametrize("step", ["99", "render#4", "nothing", "render#0", "7", "9" * 30])
def test_a_step_that_is_not_there(room: Room, record: Record, step: str) -> None:
    for _ in range(3):
        record.end(record.ask())
    _, answer = fork(room, step)
    assert isinstance(answer, Refused)
    assert answer.error == "BadFork"
    assert room.rows("SELECT count(*) FROM dq_run") == [(1,)]


def test_steps_without_a_result_are_asked_for_anew(room: Room, record: Record) -> None:
    record.end(record.ask())
    record.ask()
    last = record.ask()
    id, _ = fork(room, str(last))
    assert len(record.copied(id)) == 1
    assert room.rows(f"SELECT count(*) FROM dq_step WHERE run = {id}") == [(1,)]


def test_signals_that_were_taken_and_terms_are_copied(room: Room, record: Record) -> None:
    wait, free = record.ask("dq:wait_signal"), room.supervisor.waits.reserve(2)
    record.group.terms.append(TermRow(wait, None, topic="go", dedup="word"))
    record.group.signals += [
        SignalRow(free, 50, RUN, "go", b"payload", 3, wait),
        SignalRow(free + 1, 51, RUN, "go", b"later", 4, None),
    ]
    record.end(wait)
    last = record.ask()
    id, _ = fork(room, str(last))
    [(step,)] = room.rows(f"SELECT id FROM dq_step WHERE run = {id}")
    assert room.rows(f"SELECT name, payload, sent_at, step FROM dq_signal WHERE run = {id}") == [
        ("go", b"payload", 3, step)
    ]
    assert room.rows(f"SELECT topic, dedup FROM dq_term WHERE step = {step}") == [("go", None)]
    assert room.supervisor.waits.reserve(1) == free + 3


def test_a_checkpoint_is_taken_over_unless_the_arguments_are_new(room: Room, record: Record) -> None:
    record.end(record.ask())
    record.end(record.ask("dq:checkpoint"))
    last = record.ask(scope="1")
    id, _ = fork(room, str(last))
    [(checkpoint,)] = room.rows(f"SELECT checkpoint FROM dq_run WHERE id = {id}")
    assert room.rows(f"SELECT args FROM dq_step WHERE id = {checkpoint}") == [(b"args9",)]
    other, _ = fork(room, str(last), args=b"new")
    assert room.rows(f"SELECT checkpoint, args, fingerprint FROM dq_run WHERE id = {other}") == [
        (None, b"new", b"other")
    ]


def test_a_retry_drops_what_has_failed_and_what_came_after(room: Room, record: Record) -> None:
    caught, good, bad, sibling = record.ask(at=1), record.ask(at=10), record.ask(at=10), record.ask(at=10)
    record.end(caught, "failed", failures.pack(KeyError("caught")), at=2)
    record.end(bad, "failed", BAD, at=20)
    for id in (good, sibling):
        record.end(id, at=30)
    record.end(record.ask(at=40), at=50)  # the workflow's except clause
    record.finish("failed")
    id, answer = fork(room, retry=True)
    assert answer == Done(1, "movie~2")
    assert [row[0] for row in record.copied(id)] == [b"args8", b"args9", b"args11"]


def test_a_retry_of_a_run_that_failed_by_itself_copies_all(room: Room, record: Record) -> None:
    record.end(record.ask())
    record.finish("failed")
    id, _ = fork(room, retry=True)
    assert len(record.copied(id)) == 1


def test_a_retry_of_a_cancelled_run_drops_what_the_cancel_has_ended(room: Room, record: Record) -> None:
    timer, good, last = record.ask("dq:wait_signal"), record.ask(), record.ask()
    record.end(timer, "cancelled", BAD)  # it was not wanted any more, long before
    record.end(good)
    record.seq = 5
    record.group.cancels.append((5, 50, "it was cancelled", 77, RUN))
    record.end(last, "cancelled", BAD, at=60)
    record.end(record.ask(at=61), at=62)  # what its code has undone
    record.finish("cancelled")
    id, _ = fork(room, retry=True)
    assert [(row[0], row[3]) for row in record.copied(id)] == [(b"args8", "cancelled"), (b"args9", "completed")]


def test_a_run_that_was_ended_at_once_is_retried(room: Room, record: Record) -> None:
    record.end(record.ask())
    record.end(record.ask(), "cancelled", BAD)
    record.finish("cancelled")
    id, _ = fork(room, retry=True)
    assert [row[3] for row in record.copied(id)] == ["completed"]


def test_what_compensations_have_undone_is_not_taken_as_done(room: Room, record: Record) -> None:
    record.end(record.ask())
    record.end(record.ask(scope="0!"))
    record.finish("failed")
    _, answer = fork(room, retry=True)
    assert isinstance(answer, Refused)
    assert "1 compensations" in answer.text


def test_only_what_has_failed_is_retried(room: Room, record: Record) -> None:
    record.ask()
    _, answer = fork(room, retry=True)
    assert isinstance(answer, Refused)
    assert "is running" in answer.text


def test_names_are_numbered_and_never_taken_twice(room: Room, record: Record) -> None:
    record.end(record.ask())
    assert [fork(room)[1].text for _ in range(3)] == ["movie~2", "movie~3", "movie~4"]
    assert fork(room, name="mine")[1].text == "mine"
    _, answer = fork(room, name="mine")
    assert (answer.error, "taken" in answer.text) == ("RunConflict", True)


def test_an_unknown_run(room: Room) -> None:
    _, answer = fork(room)
    assert answer.error == "NoSuchRun"


def test_asked_again_it_is_the_same_fork(tmp_path: Path) -> None:
    with open_room(tmp_path, workers=0) as room:
        record = Record(room)
        last = record.ask()
        record.end(last)
        id, answer = fork(room, "render")
        assert fork(room, "render", id=id)[1] == answer
    with open_room(tmp_path, workers=0) as room:
        assert fork(room, "render", id=id)[1] == answer
        assert room.supervisor.ledger.runs[id].seq == 0
        assert room.rows("SELECT count(*) FROM dq_run") == [(2,)]


def test_a_fork_of_a_fork_has_the_first_one_s_origin(room: Room, record: Record) -> None:
    record.end(record.ask())
    fork(room, name="second")
    guest = Guest(room)
    first, _ = room.supervisor.clients._lease_to(guest.client)
    guest.says(ForkRun(1, first, "second", "third", "", False, b"", b""))
    assert room.rows("SELECT origin FROM dq_run WHERE name = 'third'") == [(f"{RUN} 1 movie",)]


def test_a_fork_that_can_not_be_whole_is_none(room: Room, record: Record) -> None:
    record.end(record.ask())
    record.ask()
    room.supervisor.committer.settle()
    forked = ForkRow(900, 901, RUN, 1 << 60, 1 << 60, "[]", 1, "7 1 movie", None, 2)
    group = Group(runs=[RunRow(900, "copy", 1, b"", b"", 1)], forks=[forked])
    with pytest.raises(errors.Fenced, match="should copy 2 steps, and there are 1"):
        room.supervisor.store.commit(group)
    assert room.rows("SELECT count(*) FROM dq_run") == [(1,)]
    assert room.rows("SELECT count(*) FROM dq_step") == [(2,)]


def test_a_checkpoint_may_be_the_last_step_that_is_copied(room: Room, record: Record) -> None:
    record.end(record.ask())
    record.end(record.ask("dq:checkpoint"))
    last = record.ask(scope="1")
    id, _ = fork(room, str(last))
    [(checkpoint, highest)] = room.rows(
        f"SELECT checkpoint, (SELECT max(id) FROM dq_step WHERE run = {id}) FROM dq_run WHERE id = {id}"
    )
    assert checkpoint == highest
    assert room.supervisor.ledger.next_id > highest
