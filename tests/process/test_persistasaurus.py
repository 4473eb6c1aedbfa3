"""All that Persistasaurus does, and one test for each of the ways in which it loses or repeats work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dq
from tests.process import flows, shopflows
from tests.process.crews import ROOT, rows
from tests.waiting import wait_until


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "f.db"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def engine(db: Path) -> Iterator[dq.Engine]:
    with dq.Engine(db, workers=2) as engine:
        yield engine


def kill_all(engine: dq.Engine) -> None:
    """The supervisor dies, and all that it has started with it."""
    for row in engine.census().rows:
        if row.kind == "supervisor":
            os.kill(row.pid, signal.SIGKILL)


def test_flows_of_steps_are_resumed_by_their_id_and_run_once(db: Path, folder: str) -> None:
    for _ in range(2):
        with dq.Engine(db, workers=1) as engine:
            assert engine.start(shopflows.hello, folder, "Bob", id="hello-1").result(30) == 10
    assert flows.lines(folder) == [f"begin say-{count} Bob" for count in range(5)]


def test_the_log_can_be_read_with_any_sqlite_tool(db: Path, folder: str) -> None:
    with dq.Engine(db, workers=1) as engine:
        engine.start(shopflows.hello, folder, "Bob", id="hello-1").result(30)
    assert rows(db, "SELECT name, workflow, state, steps, done FROM dq_runs") == [
        ("hello-1", "tests.process.shopflows:hello", "completed", 5, 5)
    ]
    steps = rows(db, "SELECT name, run, occurrence, state, attempt FROM dq_steps ORDER BY id")
    assert steps == [("tests.process.shopflows:say", "hello-1", count, "completed", 1) for count in range(5)]


def test_a_flow_goes_on_from_its_last_completed_step(engine: dq.Engine, folder: str) -> None:
    run = engine.start(flows.three, folder)
    wait_until(lambda: flows.begins(folder, "second"))
    kill_all(engine)
    assert run.result(30) == 11
    assert [flows.begins(folder, name) for name in ("first", "second", "third")] == [1, 2, 1]


def test_of_a_delayed_step_only_the_rest_of_the_delay_is_waited(engine: dq.Engine, db: Path, folder: str) -> None:
    run = engine.start(shopflows.reminds, folder)
    ((asked, due),) = wait_until(lambda: rows(db, "SELECT created_at, due_at FROM dq_term JOIN dq_step ON id = step"))
    assert 1_000_000 <= due - asked < 2_000_000
    kill_all(engine)
    assert run.result(30) == "reminded"
    ((again, began),) = rows(db, "SELECT due_at, began_at FROM dq_term JOIN dq_result USING (step)")
    assert again == due <= began
    assert flows.begins(folder, "remind") == 1


def test_a_flow_waits_for_a_person(engine: dq.Engine, db: Path, folder: str) -> None:
    run = engine.start(shopflows.sign_up, folder, "Bob", id="bob")
    wait_until(lambda: rows(db, "SELECT 1 FROM dq_term"))
    engine.signal("bob", "confirmed", {"at": "noon"})
    assert run.result(30) == (7, {"at": "noon"})
    assert flows.lines(folder) == ["begin create Bob", "begin mail 7"]


def test_a_failure_is_on_record_and_is_not_run_again_and_again(db: Path, folder: str) -> None:
    for _ in range(2):
        with dq.Engine(db, workers=1) as engine:
            run = engine.start(shopflows.buggy, folder, id="buggy")
            with pytest.raises(ValueError, match="there is a bug in this step"):
                run.result(30)
            assert run.status == "failed"
    assert flows.begins(folder, "breaks") == 1
    assert rows(db, "SELECT state FROM dq_runs") == [("failed",)]


def test_a_step_is_tried_again_as_often_as_it_says_under_one_key(engine: dq.Engine, folder: str) -> None:
    keys = engine.start(shopflows.retries, folder).result(30)
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_signal_before_the_wait_is_kept(engine: dq.Engine, folder: str) -> None:
    """It is sent as soon as the run is on record, long before its code comes to the wait."""
    run = engine.start(shopflows.sign_up, folder, "Bob", id="bob")
    engine.signal("bob", "confirmed", "early")
    assert run.result(30) == (7, "early")


def test_a_signal_while_the_process_is_down_is_kept(db: Path, folder: str) -> None:
    with dq.Engine(db, workers=1) as engine:
        engine.start(shopflows.sign_up, folder, "Bob", id="bob")
        wait_until(lambda: rows(db, "SELECT 1 FROM dq_term"))
    with dq.Client(db) as client:
        client.signal("bob", "confirmed", "meanwhile")
    with dq.Engine(db, workers=1) as engine:
        assert engine.get("bob").result(30) == (7, "meanwhile")
    assert [flows.begins(folder, name) for name in ("create", "mail")] == [1, 1]


def test_a_kill_right_after_the_signal_loses_nothing(engine: dq.Engine, db: Path, folder: str) -> None:
    run = engine.start(shopflows.sign_up, folder, "Bob", id="bob")
    wait_until(lambda: rows(db, "SELECT 1 FROM dq_term"))
    engine.signal("bob", "confirmed", "just in time")
    kill_all(engine)
    assert run.result(30) == (7, "just in time")


def test_several_waits_of_one_flow_at_once(engine: dq.Engine) -> None:
    run = engine.start(shopflows.two_reviews)
    run.signal("finance", 2)
    run.signal("legal", 1)
    assert run.result(30) == [1, 2]


def test_steps_inside_steps_do_not_confuse_a_replay(engine: dq.Engine, folder: str) -> None:
    run = engine.start(shopflows.nested, folder)
    wait_until(lambda: flows.begins(folder, "held"))
    kill_all(engine)
    assert run.result(30) == 46
    assert [flows.begins(folder, name) for name in ("outer", "inner")] == [2, 4]


def test_two_processes_on_one_file_run_a_flow_once(engine: dq.Engine, db: Path, folder: str) -> None:
    run = engine.start(shopflows.sign_up, folder, "Bob", id="bob")
    script = (
        "import sys, dq\nfrom tests.process import shopflows\n"
        "with dq.Engine(sys.argv[1]) as engine:\n"
        "    run = engine.start(shopflows.sign_up, sys.argv[2], 'Bob', id='bob')\n"
        "    run.signal('confirmed', 'there')\n"
        "    print(run.result(30))\n"
    )
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
    other = subprocess.run(
        [sys.executable, "-c", script, str(db), folder], env=environ, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert (other.stdout, other.stderr) == ("(7, 'there')\n", "")
    assert run.result(30) == (7, "there")
    assert flows.lines(folder) == ["begin create Bob", "begin mail 7"]


def test_steps_run_side_by_side(engine: dq.Engine, folder: str) -> None:
    run = engine.start(shopflows.side_by_side, folder)
    wait_until(lambda: flows.begins(folder, "left") and flows.begins(folder, "right"))
    for name in ("right", "left"):
        Path(folder, f"open-{name}").touch()
    assert run.result(30) == [10, 20]


def test_other_arguments_are_another_flow(engine: dq.Engine, folder: str) -> None:
    engine.start(shopflows.sign_up, folder, "Bob", id="bob")
    with pytest.raises(dq.RunConflict, match=r"'Bob'.*'Alice'"):
        engine.start(shopflows.sign_up, folder, "Alice", id="bob")


def test_a_step_with_other_arguments_than_recorded_stops_the_flow(db: Path, folder: str) -> None:
    amount = Path(folder, "amount")
    amount.write_text("1")
    with dq.Engine(db, workers=1, grace=0) as engine:
        engine.start(shopflows.pays, folder, id="pays")
        wait_until(lambda: flows.begins(folder, "pay"))
    Path(folder, "open-pay").touch()
    amount.write_text("1000")
    with dq.Engine(db, workers=1) as engine:
        run = engine.get("pays")
        with pytest.raises(dq.RunBlocked, match=r"1000"):
            run.result(30)
        amount.write_text("1")
        engine.resume("pays")
        assert run.result(30) == 11
    assert flows.begins(folder, "after") == 1
