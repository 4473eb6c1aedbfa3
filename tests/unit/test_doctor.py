"""What the doctor finds: each ailment, and nothing on a healthy file."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from dq.cli.doctor import command, contents, machine, owner, work
from dq.cli.doctor.command import examine
from dq.cli.doctor.finding import ERROR, NOTE, WARNING, Finding
from dq.crew.delays import FAR
from dq.executor import blobs
from dq.model.payload import FILE, seal
from dq.store import faults, place
from dq.store.group import ContextRow, FunctionRow, Group, RunRow, ScheduleRow, TermRow
from dq.store.store import Store
from tests.store import rows
from tests.waiting import wait_until

SYNC = 0.001  # seconds, of a disk without fault


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file that is in order, and a machine that is."""
    monkeypatch.setattr(machine, "sync_time", lambda _folder: SYNC)
    monkeypatch.setattr(faults, "room", lambda _folder: 1 << 40)
    path = str(tmp_path / "f.db")
    with_rows(path, rows.functions())
    return path


def with_rows(path: str, *groups: Group) -> None:
    store = Store.open(path)
    store.boot("boot-1")
    for group in groups:
        store.commit(group)
    store.close(clean=True)


def found(db: str, level: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(db) if finding.level == level}


def test_a_healthy_file_has_no_findings(db: str) -> None:
    with_rows(db, rows.batch(1, 3), rows.results(0, range(1, 4)))
    assert list(examine(db)) == []
    done = CliRunner().invoke(command.command, ["--db", db, "--json"], standalone_mode=False)
    assert done.return_value == 0
    assert json.loads(done.stdout) == {"db": db, "healthy": True, "findings": []}


def test_findings_say_what_and_why_and_what_to_do(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "sync_time", lambda _folder: 0.000_002)
    done = CliRunner().invoke(command.command, ["--db", db], standalone_mode=False)
    assert done.return_value == 1
    assert "warning: durability: a sync takes 2.0 µs" in done.stdout
    assert "\n  why: " in done.stdout
    assert "\n  do:  " in done.stdout
    assert done.stdout.endswith("not healthy\n")


def test_notes_are_no_illness(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "sync_time", lambda _folder: 0.1)
    assert found(db, NOTE)["durability"].what == "a sync takes 100 ms"
    assert CliRunner().invoke(command.command, ["--db", db], standalone_mode=False).return_value == 0


def test_a_sync_is_measured(tmp_path: Path) -> None:
    took = machine.sync_time(str(tmp_path))
    assert took is not None
    assert 0 < took < 10
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("kind", "level"), [(0x6969, ERROR), (0x01021994, NOTE)], ids=["NFS", "tmpfs"])
def test_file_systems(db: str, monkeypatch: pytest.MonkeyPatch, kind: int, level: str) -> None:
    monkeypatch.setattr(place, "file_system", lambda _folder: kind)
    assert "file system" in found(db, level)


@pytest.mark.parametrize(("free", "level"), [(100 << 20, WARNING), (1 << 20, ERROR)], ids=["little", "none"])
def test_a_disk_that_is_nearly_full(db: str, monkeypatch: pytest.MonkeyPatch, free: int, level: str) -> None:
    monkeypatch.setattr(faults, "room", lambda _folder: free)
    assert "room" in found(db, level)


def test_a_damaged_page(db: str) -> None:
    with_rows(db, rows.batch(1, 2000))
    with open(db, "r+b") as file:
        file.seek(-3 * 4096, os.SEEK_END)
        file.write(os.urandom(3 * 4096))
    assert found(db, ERROR)


def test_what_is_no_database_of_dq(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"hello" * 1000)
    assert "NotADatabase" in found(str(tmp_path / "x.db"), ERROR)
    assert "StoreError" in found(str(tmp_path / "none.db"), ERROR)
    assert "place" in found(str(tmp_path / "none" / "x.db"), ERROR)


def test_side_files_that_are_missing_cut_or_loose(db: str) -> None:
    kept, cut, gone, loose = (blobs.write(f"{db}.blobs", name, b"data", []) for name in ("a1", "a2", "a3", "s4-e5"))
    steps = [(id, 1, seal(FILE, body), rows.NOW) for id, body in enumerate((kept, cut, gone), 1)]
    with_rows(db, Group(lease_to=4, batches=[(1, 3)], steps=steps))
    where = [Path(blobs.path_of(f"{db}.blobs", blobs.reference(body).name)) for body in (kept, cut, gone, loose)]
    where[1].write_bytes(b"x")
    where[2].unlink()
    os.utime(where[3], (1, 1))
    errors = [finding.what for finding in examine(db) if finding.check == "side files" and finding.level == ERROR]
    assert [what.split(", such as ")[0] for what in errors] == [
        "1 side files are missing",
        "1 side files have another size than on record",
    ]
    assert where[2].name in errors[0]
    assert found(db, NOTE)["side files"].what.startswith("nothing refers to 1 side files")


def test_a_clock_that_was_set_back(db: str) -> None:
    later = time.time_ns() // 1000 + 3_600_000_000
    result = (1, None, "completed", 1, 0, 0, later, later, rows.RESULT)
    with_rows(db, rows.batch(1, 1), Group(results=[result], closed_batches=[(1,)]))
    assert "minutes in the future" in found(db, WARNING)["clock"].what


def test_what_was_put_on_record_under_a_clock_that_was_wrong(db: str) -> None:
    later = time.time_ns() // 1000 + 800 * contents.DAY
    group = Group(
        lease_to=4, batches=[(1, 3)], steps=[(id, 1, rows.ARGS, later if id == 1 else rows.NOW) for id in (1, 2, 3)],
        terms=[TermRow(1, later + 60_000_000), TermRow(2, rows.NOW), TermRow(3, FAR)],
    )  # fmt: skip
    schedule = ScheduleRow(
        "nightly", 1, rows.ARGS, b"f" * 16, "0 3 * * *", "UTC", "skip", "skip", 0, later, None, None, None, 0, later
    )
    with_rows(db, group, Group(schedules=[schedule]))
    assert found(db, WARNING)["clock"].what == "something was put on record 800 days in the future"
    notes = found(db, NOTE)
    assert notes["due times"].what == "1 steps, such as 1, are due in more than a year, the last one in 800 days"
    assert "such as nightly" in notes["schedules"].what
    with_rows(db, rows.results(0, [1]))
    assert "due times" not in found(db, NOTE)


def test_a_log_that_grows(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "LONG_LOG", -1)
    assert "log" in found(db, WARNING)


def test_blocked_runs_and_parked_steps(db: str) -> None:
    with_rows(db, rows.run(1, "movie 1"), rows.run_ends(1, "blocked"), rows.batch(2, 2), Group(terms=[TermRow(2, FAR)]))
    warnings = found(db, WARNING)
    assert "such as movie 1: why" in warnings["blocked"].what
    assert "dq show 'movie 1'" in warnings["blocked"].do
    assert "2 (flow:render)" in warnings["parked"].what


def test_unfinished_work_that_nobody_does_and_whose_script_and_executor_are_missing(db: str) -> None:
    functions = [FunctionRow(9, 9, "x:gpu", "step", b"x" * 16, None, "gpu", 3, rows.NOW)]
    context = ContextRow(9, sys.executable, "/nowhere/flow.py", "/", "[]")
    steps = [(5, 9, rows.ARGS, rows.NOW)]
    with_rows(db, Group(contexts=[context], functions=functions, lease_to=6, batches=[(5, 5)], steps=steps))
    notes = found(db, NOTE)
    assert notes["owner"].what.startswith("1 runs and steps are unfinished")
    assert "--executor gpu=..." in notes["executors"].do
    assert "/nowhere/flow.py" in found(db, ERROR)["scripts"].what


def test_claims_and_a_socket_that_a_killed_supervisor_has_left(db: str) -> None:
    store = Store.open(db)
    store.boot("boot-1")
    store.commit(rows.batch(1, 2))
    store.commit(rows.claim(rows.epoch(store, 1), [1, 2]))
    store.close(clean=False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{db}.sock")
    notes = found(db, NOTE)
    assert "1 claims are left" in notes["claims"].what
    assert "dead supervisor's" in notes["socket"].what


def test_claims_of_the_dead_and_of_another_boot_under_a_live_supervisor(db: str) -> None:
    store = Store.open(db)
    store.boot("boot-1")
    store.commit(rows.batch(1, 2))
    store.commit(rows.claim(rows.epoch(store, 1), [1], pid=2**22 + 1))
    store.commit(rows.claim((1 << 40) | 7, [2]))
    store.close(clean=False)
    with open(f"{db}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert owner.find(db).pid == os.getpid()
        errors = found(db, ERROR)
    assert errors["claims"].what.startswith(
        "1 open claims are of an earlier supervisor, 1 are of processes that are gone"
    )
    assert "leads nowhere" in errors["socket"].what or "socket" in errors


def test_runs_that_nobody_hears_of_under_a_live_supervisor(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_rows(db, rows.run(1, "quiet"), rows.run(5, "waits"), rows.flow_steps(5, [6]))
    late = Group(lease_to=9, runs=[RunRow(8, "new", 2, rows.ARGS, b"f" * 16, time.time_ns() // 1000)])
    with_rows(db, late)
    with open(f"{db}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert found(db, WARNING)["runs"].what.startswith("1 runs have no open step and are quiet, quiet for ")
    assert "runs" not in found(db, WARNING)
    assert work.QUIET > 0


def test_a_supervisor_that_is_stopped(db: str) -> None:
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print('held', flush=True); sys.stdin.read()"
    )
    command_line = [sys.executable, "-c", hold, f"{db}.lock", "--executor", "gpu=process:1"]
    with subprocess.Popen(command_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        who = owner.find(db)
        assert (who.pid, who.executors) == (holder.pid, ("gpu",))
        holder.send_signal(signal.SIGSTOP)
        wait_until(lambda: owner._state(holder.pid) == "T")
        assert f"kill -CONT {holder.pid}" in found(db, ERROR)["owner"].do
        holder.kill()


def test_a_copy_that_is_being_made_is_a_note(db: str) -> None:
    os.mkdir(f"{db}.blobs")
    fd = os.open(f"{db}.blobs", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert f"process {os.getpid()} makes a copy" in found(db, NOTE)["backup"].what
    os.close(fd)
