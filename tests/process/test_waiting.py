"""Timers, signals, child runs and cancels with real processes, which are killed meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import dq
from tests.process import flows, waitflows
from tests.process.crews import rows
from tests.process.test_cli import call, start
from tests.waiting import wait_until


def kill(engine: dq.Engine, kind: str) -> None:
    for row in engine.census().rows:
        if row.kind == kind:
            os.kill(row.pid, signal.SIGKILL)


def timer(db: Path) -> tuple[int, int]:
    """(when it was asked for, when it is due) of the only timer."""
    found = wait_until(lambda: rows(db, "SELECT created_at, due_at FROM dq_term JOIN dq_step ON id = step"))
    ((asked, due),) = found
    return asked, due


def test_a_sleep_goes_on_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    db = tmp_path / "f.db"
    with dq.Engine(db, workers=1) as engine:
        run = engine.start(waitflows.sleeper, str(tmp_path), 1.5)
        asked, due = timer(db)
        assert due - asked == 1_500_000
        kill(engine, "supervisor")
        assert run.result(30) == 2
        assert timer(db) == (asked, due)
    ((ended,),) = rows(db, "SELECT ended_at FROM dq_result JOIN dq_term USING (step)")
    assert due <= ended
    assert [flows.begins(tmp_path, name) for name in ("before", "after")] == [1, 1]


def test_a_signal_that_is_sent_while_nobody_is_at_work_is_there_at_the_next_start(tmp_path: Path) -> None:
    db = tmp_path / "f.db"
    with dq.Engine(db, workers=1) as engine:
        engine.start(waitflows.asks, id="r")
        wait_until(lambda: rows(db, "SELECT 1 FROM dq_term"))
    assert call(tmp_path, "signal", "r", "answer", '{"by": "Ada"}', "--db", "f.db") == (
        0, "run r has the signal answer\n", ""
    )  # fmt: skip
    up = start(tmp_path, "up", "--db", "f.db", "--workers", "1")
    wait_until(lambda: rows(db, "SELECT state FROM dq_runs") == [("completed",)])
    up.send_signal(signal.SIGTERM)
    up.communicate(timeout=30)
    code, _, errors = call(tmp_path, "signal", "r", "answer", "--db", "f.db")
    assert code
    assert "run 'r' is completed, so it can't be signalled" in errors
    with dq.Engine(db, workers=1) as engine:
        assert engine.get("r").result(30) == {"by": "Ada"}


@pytest.mark.parametrize("victim", ["supervisor", "host"])
def test_signals_come_once_and_in_order_whoever_is_killed(tmp_path: Path, victim: str) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        run = engine.start(waitflows.asks_twice, id="r")
        run.signal("answer", 1)
        kill(engine, victim)
        run.signal("answer", 2)
        assert run.result(30) == [1, 2]


def test_children_go_on_when_their_host_is_killed(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=3) as engine:
        run = engine.start(waitflows.family, str(tmp_path), 3, id="r")
        wait_until(lambda: all(flows.begins(tmp_path, f"child-{n}") for n in range(3)))
        kill(engine, "host")
        for number in range(3):
            (tmp_path / f"open-child-{number}").touch()
        assert run.result(30) == [10, 20, 30]
    assert [flows.begins(tmp_path, f"{kind}-{n}") for kind in ("plain", "child") for n in range(3)] == [1] * 6
    children = rows(tmp_path / "f.db", "SELECT name, state FROM dq_runs WHERE name <> 'r'")
    assert [(name.startswith("r/"), state) for name, state in children] == [(True, "completed")] * 3


@pytest.mark.parametrize("hangs", [False, True])
def test_a_step_in_a_loop_in_c_is_cancelled_and_undone(tmp_path: Path, hangs: bool) -> None:
    db = tmp_path / "f.db"
    (tmp_path / "open-undo").touch()
    with dq.Engine(db, workers=1) as engine:
        run = engine.start(waitflows.undoes, str(tmp_path), hangs, id="r")
        wait_until(lambda: flows.begins(tmp_path, "spins"))
        pid = int(flows.lines(tmp_path)[0].split()[2])
        assert "asked to end" in run.cancel()
        wait_until(lambda: flows.begins(tmp_path, "undo"))
        assert not os.path.exists(f"/proc/{pid}"), "its body was dead before it was on record as ended"
        if hangs:
            assert run.cancel() == "run r is cancelled"
            with pytest.raises(dq.Cancelled):
                run.result(30)
        else:
            assert run.result(30) == "undone"
        assert run.status == ("cancelled" if hangs else "completed")
    # The second cancel may meet the undoing before its worker has told of its end, and then kills that too.
    assert set(rows(db, "SELECT outcome, charged FROM dq_attempt")) == {("cancelled", 0)}


def test_a_cancel_is_not_lost_with_the_supervisor(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        run = engine.start(waitflows.undoes, str(tmp_path), False, id="r")
        wait_until(lambda: flows.begins(tmp_path, "spins"))
        run.cancel()
        kill(engine, "supervisor")
        (tmp_path / "open-undo").touch()
        assert run.result(30) == "undone"
        assert flows.begins(tmp_path, "undo") in (1, 2), "the first may have been under way when all were killed"


def test_a_run_that_takes_too_long_fails(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        run = engine.start(waitflows.brief, str(tmp_path))
        with pytest.raises(dq.RunTimeout, match="out of time"):
            run.result(30)
        assert run.status == "failed"
    assert flows.begins(tmp_path, "tidied") == 1


def test_a_wait_for_a_signal_ends_in_time(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        run = engine.start(waitflows.asks, 0.1)
        with pytest.raises(dq.SignalTimeout):
            run.result(30)


def test_runs_are_cancelled_from_the_command_line(tmp_path: Path) -> None:
    db = tmp_path / "f.db"
    with dq.Engine(db, workers=1) as engine:
        run = engine.start(waitflows.asks, id="r")
        wait_until(lambda: rows(db, "SELECT 1 FROM dq_term"))
        assert call(tmp_path, "cancel", "r", "--db", "f.db") == (
            0, "run r is asked to end; a second cancel ends it at once\n", ""
        )  # fmt: skip
        with pytest.raises(dq.Cancelled):
            run.result(30)
        engine.start(waitflows.asks, id="s")
    assert call(tmp_path, "cancel", "s", "--now", "--db", "f.db") == (0, "run s is cancelled\n", "")
    assert rows(db, "SELECT name, state FROM dq_runs ORDER BY name") == [("r", "cancelled"), ("s", "cancelled")]
    code, _, errors = call(tmp_path, "cancel", "s", "--db", "f.db")
    assert code
    assert "run 's' is cancelled, so it can't be cancelled" in errors
