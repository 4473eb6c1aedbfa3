"""What the supervisor knows is what the next commit writes, and what a successor reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.crew.ledger import BLOCK
from dq.executor.frames import Context, Define
from dq.model.states import RunState
from tests.unit.crewroom import CONTEXT, Room, open_room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with open_room(tmp_path) as room:
        yield room


def test_ids_are_given_out_once_also_over_supervisors(tmp_path: Path) -> None:
    blocks: list[tuple[int, int]] = []
    for _ in range(3):
        with open_room(tmp_path) as room:
            blocks += [room.supervisor.ledger.lease() for _ in range(3)]
            assert room.rows("SELECT next_id FROM dq_engine") == [(blocks[-1][0] + BLOCK,)]
    starts = [first for first, _ in blocks]
    assert starts == [1 + BLOCK * n for n in range(9)]
    assert {count for _, count in blocks} == {BLOCK}


def test_a_lease_that_is_not_on_disk_is_given_again(tmp_path: Path) -> None:
    """So it must not leave before."""
    with open_room(tmp_path) as room:
        lost = room.supervisor.ledger.lease()
    with open_room(tmp_path) as room:
        assert room.supervisor.ledger.lease() == lost


def test_epochs_are_unique_and_rise(tmp_path: Path) -> None:
    epochs: list[int] = []
    for boot in (1, 2, 3):
        with open_room(tmp_path) as room:
            new = [room.supervisor.ledger.epoch() for _ in range(1000)]
            assert {epoch >> 40 for epoch in new} == {boot}
            epochs += new
    assert epochs == sorted(set(epochs))


def test_a_place_is_known_by_where_code_comes_from(room: Room) -> None:
    ledger = room.supervisor.ledger
    same = ledger.context(Context(CONTEXT.python, CONTEXT.script, CONTEXT.cwd, CONTEXT.path, "edited since"))
    assert same == room.context
    other = ledger.context(Context("python", "", "/", ("/elsewhere",), ""))
    assert other != room.context
    assert room.rows("SELECT id, path FROM dq_context") == [(room.context, "[]"), (other, '["/elsewhere"]')]


def test_a_function_is_known_by_its_digest(room: Room) -> None:
    ledger = room.supervisor.ledger
    by_name = Define(5, "pack.mod:f", "step", b"1" * 16, b"", "io", 7)
    by_value = Define(6, "<lambda> at f.py:3", "step", b"2" * 16, b"pickle", "", 3)
    one, two = ledger.function(by_name, room.context), ledger.function(by_value, room.context)
    assert ledger.function(by_name, room.context) is one
    assert one.id != two.id
    told = one.define
    assert (told.number, told.name, told.executor, told.max_crashes) == (one.id, "pack.mod:f", "io", 7)
    elsewhere = ledger.context(Context("python", "", "/", ("/elsewhere",), ""))
    assert ledger.function(by_name, elsewhere) is not one, "another module may be found there by that name"
    assert ledger.modules(room.context) == {"pack.mod"}, "what travels by value is imported from nowhere"
    assert room.rows("SELECT count(*) FROM dq_function") == [(3,)]


def test_a_successor_knows_the_same(tmp_path: Path) -> None:
    define = Define(1, "pack.mod:f", "step", b"1" * 16, b"", "io", 7)
    code = Define(2, "<lambda>", "workflow", b"2" * 16, b"pickle", "", 3)
    with open_room(tmp_path) as room:
        made = [room.supervisor.ledger.function(each, room.context) for each in (define, code)]
        room.supervisor.ledger.start(9, "run", made[1], b"args", b"mark")
        room.supervisor.committer.settle()
        contexts = room.supervisor.ledger.contexts
    with open_room(tmp_path) as room:
        ledger = room.supervisor.ledger
        assert ledger.contexts == contexts
        assert [ledger.functions[each.id].define for each in made] == [each.define for each in made]
        assert ledger.function(define, room.context).id == made[0].id
        run = ledger.by_name["run"]
        assert (run.id, run.function.id, run.fingerprint, run.state) == (9, made[1].id, b"mark", "running")


def test_a_run_that_has_ended_is_known_until_that_is_in_the_file(room: Room) -> None:
    ledger = room.supervisor.ledger
    run = ledger.start(9, "run", room.function("m:w"), b"args", b"mark")
    room.supervisor.committer.commit()
    ledger.change(run, RunState.COMPLETED, b"result")
    assert ledger.by_name["run"] is run
    room.supervisor.committer.commit()
    assert not ledger.by_name
    assert not ledger.runs
    assert room.rows("SELECT state, payload FROM dq_run") == [("completed", b"result")]


def test_a_blocked_run_is_kept(room: Room) -> None:
    ledger = room.supervisor.ledger
    run = ledger.start(9, "run", room.function("m:w"), b"args", b"mark")
    ledger.change(run, RunState.BLOCKED, reason="another step")
    room.supervisor.committer.commit()
    assert ledger.runs[9].reason == "another step"
    ledger.change(run, RunState.RUNNING)
    assert room.rows("SELECT state, reason FROM dq_run") == [("running", None)]
