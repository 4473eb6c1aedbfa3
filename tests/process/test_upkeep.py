"""Retention, copies, dead letters and the doctor, while real processes work and are killed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import dq
from dq.cli.main import main
from dq.store.group import Group, RunRow
from dq.store.store import Store
from tests.process import flows, upkeepflows
from tests.process.crews import rows, serving
from tests.store import rows as forged
from tests.waiting import wait_until

YEAR = timedelta(days=300)  # what is forged ended earlier
OLD = 3000  # steps
_LINES = {("dead", "retry"), ("dead", "discard")}  # commands that print a line for each thing that they do


def call(*words: str, code: int = 0) -> Any:
    """A command with --json, in this process since that is quicker, and what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*words, "--json"]) == code
    lines = [json.loads(line) for line in out.getvalue().splitlines()] if words[:2] in _LINES else []
    return lines or json.loads(out.getvalue() or "null")


def finish(db: Path) -> None:
    """`dq up` until nothing is left to do."""
    command = [sys.executable, "-m", "dq", "up", "--workers", "2", "--until-idle", "--db", str(db)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def old_file(db: Path) -> None:
    """A file with a year of ended work: steps submitted alone, a run with steps, and a child run."""
    store = Store.open(db)
    store.boot("boot-1")
    store.commit(forged.functions())
    store.commit(forged.batch(1, OLD))
    store.commit(forged.results(0, range(1, OLD + 1)))
    store.commit(Group(closed_batches=[(1,)]))
    run = OLD + 1
    store.commit(forged.run(run, "old"))
    store.commit(forged.flow_steps(run, range(run + 1, run + 500)))
    store.commit(Group(runs=[RunRow(run + 1, "old/1", 2, forged.ARGS, b"f" * 16, forged.NOW, parent=run)]))
    store.commit(forged.results(0, range(run + 1, run + 500)))
    store.commit(forged.run_ends(run + 1))
    store.commit(forged.run_ends(run))
    store.close(clean=True)


def old_rows(db: Path) -> int:
    """Rows of that year that are left."""
    since = forged.NOW + 1000
    return int(
        rows(db, f"SELECT (SELECT count(*) FROM dq_step WHERE created_at < {since})"
                 f" + (SELECT count(*) FROM dq_run WHERE created_at < {since})")[0][0]
    )  # fmt: skip


def test_old_work_is_deleted_while_new_work_goes_on(tmp_path: Path) -> None:
    db = tmp_path / "f.db"
    old_file(db)
    with dq.Engine(db, workers=2) as engine:
        runs = [engine.start(upkeepflows.heavy, number, id=f"heavy-{number}") for number in range(8)]
        futures = [engine.submit(upkeepflows.weigh, b"\x01", number) for number in range(300)]
        told = engine.gc(YEAR)
        assert (told.runs, told.steps) == (2, OLD + 499)
        assert [future.result(30) for future in futures] == [2 + number for number in range(300)]
        assert [run.result(30) for run in runs] == [300_000 + 2 * number for number in range(8)]
        assert old_rows(db) == 0
        again = engine.start(upkeepflows.heavy, 3, id="old")  # the id is free
        assert again.result(30) == 300_006
    assert call("doctor", "--db", str(db))["healthy"]


def test_a_supervisor_that_is_killed_while_it_deletes_loses_nothing_else(tmp_path: Path) -> None:
    db, folder = tmp_path / "f.db", str(tmp_path)
    old_file(db)
    before = old_rows(db)
    with dq.Engine(db, workers=2) as engine:
        run = engine.start(upkeepflows.held_heavy, folder, id="held")
        wait_until(lambda: flows.begins(folder, "second"))
        victim = next(row.pid for row in engine.census().rows if row.kind == "supervisor")
        command = [sys.executable, "-m", "dq", "gc", "--older-than", "300d", "--db", str(db), "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as asking:
            left = wait_until(lambda: before - old_rows(db))
            os.kill(victim, signal.SIGKILL)
            assert asking.stdout is not None
            told = json.loads(asking.stdout.read())  # it asks the successor once more
        assert asking.returncode == 0
        assert told["steps"] + left <= before
        wait_until(lambda: not old_rows(db))
        (tmp_path / "open-second").touch()
        assert run.result(30) == 300_000 + 7 + 10
    assert call("doctor", "--db", str(db))["healthy"]


def test_a_copy_that_is_made_under_load_goes_on_by_itself(tmp_path: Path) -> None:
    db, copy = tmp_path / "f.db", tmp_path / "copies" / "c.db"
    copy.parent.mkdir()
    with dq.Engine(db, workers=2) as engine:
        held = engine.start(upkeepflows.held_heavy, str(tmp_path), id="held")
        wait_until(lambda: flows.begins(tmp_path, "second"))
        futures = [engine.submit(upkeepflows.weigh, b"\x01", number) for number in range(2000)]
        told = engine.backup(copy)
        assert (told.files, told.linked) == (1, 1)
        assert len([future.result(30) for future in futures]) == 2000
        (tmp_path / "open-second").touch()
        assert held.result(30) == 300_017
    # All that was acknowledged before is in it: each of the 2000 steps, done or not.
    assert rows(copy, "SELECT count(*) FROM dq_step WHERE run IS NULL") == [(2000,)]
    finish(copy)
    assert rows(copy, "SELECT count(*) FROM dq_steps WHERE run IS NULL AND state = 'completed'") == [(2000,)]
    assert rows(copy, "SELECT state FROM dq_runs WHERE name = 'held'") == [("completed",)]
    assert call("doctor", "--db", str(copy))["healthy"]


def test_a_copy_whose_process_is_killed_is_not_there(tmp_path: Path) -> None:
    db, copy = tmp_path / "f.db", tmp_path / "c.db"
    old_file(db)
    part = Path(f"{copy}.part")
    making = subprocess.Popen(
        [sys.executable, "-P", "-m", "dq.crew.backup", str(db), str(copy)], stdout=subprocess.DEVNULL
    )
    wait_until(part.exists)
    making.kill()
    making.wait()
    assert copy.exists() == (making.returncode == 0)
    if making.returncode:
        assert call("backup", str(copy), "--db", str(db))["files"] == 0
    assert not part.exists()
    assert len(rows(copy, "SELECT id FROM dq_step")) == OLD + 499


def test_dead_letters_from_their_crash_to_their_retry(tmp_path: Path) -> None:
    db, folder, armed = tmp_path / "f.db", str(tmp_path), tmp_path / "armed"
    armed.touch()
    with dq.Engine(db, workers=2) as engine:
        dead = engine.submit(upkeepflows.fragile, folder, 21)
        failed = [engine.submit(upkeepflows.picky, folder, number) for number in (1, 22)]
        run = engine.start(upkeepflows.careful, folder, id="careful")
        assert isinstance(dead.exception(30), dq.StepCrashed)
        assert all(isinstance(future.exception(30), ValueError) for future in failed)
        with pytest.raises(ValueError, match="no 20 today"):
            run.result(30)
        letters = {letter.id: letter for letter in engine.dead()}
        assert len(letters) == 4
        [crashed] = [letter for letter in letters.values() if letter.ended == "dead"]
        armed.unlink()
        assert engine.retry_step(int(crashed.id)).result(30) == 42
    groups = call("dead", "ls", "--group", "--db", str(db))
    assert [(group["name"].rpartition(":")[2], group["times"]) for group in groups] == [("picky", 2), ("careful", 1)]
    shown = call("dead", "show", str(crashed.id), "--db", str(db))
    assert [attempt["signal"] for attempt in shown["attempt_list"]] == ["SIGKILL", "SIGKILL"]
    assert (shown["state"], shown["attempts"]) == ("retried", 2)
    one, two = sorted(int(letter.id) for letter in letters.values() if letter.type == "ValueError" and not letter.run)
    call("dead", "retry", str(one), "careful", "--db", str(db))  # nobody works on the file
    call("dead", "discard", str(two), "--db", str(db))
    assert call("dead", "ls", "--db", str(db)) == []
    finish(db)
    assert flows.begins(folder, "free") == 1  # what had completed is not run again
    states = dict(rows(db, "SELECT name, state FROM dq_runs"))
    assert states == {"careful": "failed", "careful~2": "completed"}
    assert rows(db, "SELECT count(*) FROM dq_steps WHERE state IN ('pending', 'claimed')") == [(0,)]


def test_the_supervisor_is_killed_right_after_a_retry_is_acknowledged(tmp_path: Path) -> None:
    db, folder, armed = tmp_path / "f.db", str(tmp_path), tmp_path / "armed"
    armed.touch()
    with dq.Engine(db, workers=1) as engine:
        assert engine.submit(upkeepflows.picky, folder, 1).exception(30)
        [letter] = engine.dead()
        armed.unlink()
        retried = engine.retry_step(int(letter.id))
        os.kill(next(row.pid for row in engine.census().rows if row.kind == "supervisor"), signal.SIGKILL)
        assert retried.result(30) == 2
        assert engine.dead() == []
        assert [one.state for one in engine.dead(all=True)] == ["retried"]
    assert rows(db, "SELECT count(*) FROM dq_step") == [(2,)]


def test_space_is_given_back_when_nobody_works_on_the_file(tmp_path: Path) -> None:
    db = tmp_path / "f.db"
    old_file(db)
    with serving(db, "--workers", "1"):
        call("gc", "--compact", "--db", str(db), code=75)
    assert call("gc", "--older-than", "300d", "--dry-run", "--db", str(db))["steps"] == OLD + 499
    assert old_rows(db)
    told = call("gc", "--older-than", "300d", "--compact", "--db", str(db))
    assert told["bytes_after"] < told["bytes_before"] // 2
    assert old_rows(db) == 0


def test_the_doctor_looks_at_a_supervisor_that_works(tmp_path: Path) -> None:
    db = tmp_path / "f.db"
    with serving(db, "--workers", "1") as supervisor:
        assert call("doctor", "--db", str(db))["healthy"]
        supervisor.send_signal(signal.SIGSTOP)
        found = wait_until(lambda: call("doctor", "--db", str(db), code=1)["findings"])
        assert any(f"kill -CONT {supervisor.pid}" in finding["do"] for finding in found)
        supervisor.send_signal(signal.SIGCONT)
