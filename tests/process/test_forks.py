"""Forks and retries of real runs: from a step, with other input, with signals and children, under a kill."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import dq
from dq import errors
from dq.cli.main import main
from tests.process import flows
from tests.process.crews import rows
from tests.process.test_commit_kills import _may_trace, attach
from tests.waiting import wait_until


@dq.workflow
def child(folder: str, value: int) -> int:
    return flows.plain(folder, "child", value)


@dq.step
def brittle(folder: str, name: str, value: int) -> int:
    flows.note(folder, "begin", name, value)
    if value == 2 and not os.path.exists(f"{folder}/mended"):
        raise ValueError("two is too much")
    return value * 10


@dq.workflow
def journey(folder: str, value: int) -> list[Any]:
    first = flows.plain(folder, "first", value)
    inner = child(folder, first)
    who = dq.wait_signal("who")
    chance, now = dq.random(), dq.now().isoformat()
    drawn = flows.plain(folder, "drawn", int(chance * 1000) + len(now))
    parts = brittle.map([folder] * 4, ["part"] * 4, range(4))
    return [inner, who, drawn, sum(parts), chance, now, dq.current().run]


def _failed(engine: dq.Engine, folder: Path) -> None:
    run = engine.start(journey, str(folder), 1, id="j")
    run.signal("who", "Ada")
    with pytest.raises(ValueError, match="two is too much"):
        run.result(30)


def test_a_retry_runs_what_has_failed_and_nothing_else(engine: dq.Engine, tmp_path: Path) -> None:
    _failed(engine, tmp_path)
    again = engine.retry("j")
    assert again.id == "j~2"
    with pytest.raises(ValueError, match="two is too much"):
        again.result(30)
    (tmp_path / "mended").touch()
    mended = engine.retry("j~2")
    assert mended.id == "j~3"
    inner, who, _drawn, parts, _chance, _now, name = mended.result(30)
    assert (inner, who, parts, name) == (3, "Ada", 60, "j~3")
    assert [flows.begins(tmp_path, name) for name in ("first", "child", "drawn", "part")] == [1, 1, 1, 6]
    assert engine.get("j").status == "failed"
    with pytest.raises(errors.BadFork, match="is completed"):
        engine.retry("j~3")
    origins = rows(tmp_path / "f.db", "SELECT name, forked_from IS NULL, origin FROM dq_run WHERE parent IS NULL")
    assert [row[:2] for row in origins] == [("j", 1), ("j~2", 0), ("j~3", 0)]
    assert origins[1][2] == origins[2][2]


def test_a_fork_runs_anew_from_a_step_on(engine: dq.Engine, tmp_path: Path) -> None:
    (tmp_path / "mended").touch()
    run = engine.start(journey, str(tmp_path), 1, id="j")
    run.signal("who", "Ada")
    live = run.result(30)
    copy = engine.fork("j", "brittle#3", new_id="copy")
    assert copy.result(30) == [*live[:-1], "copy"]
    assert flows.begins(tmp_path, "part") == 6
    assert flows.begins(tmp_path, "child") == 1
    over = engine.fork("j", args=(str(tmp_path), 5))
    assert over.id == "j~2"
    over.signal("who", "Grace")
    assert over.result(30)[:2] == [7, "Grace"]
    other = engine.fork("j", "dq:wait_signal", args=(str(tmp_path), 9))
    with pytest.raises(dq.RunBlocked, match=r"plain.*call 1"):
        other.result(30)
    assert run.result(1) == live


@dq.workflow
def chapters(folder: str, chapter: int = 0) -> int:
    flows.plain(folder, f"chapter{chapter}", chapter)
    if not chapter:
        dq.checkpoint(folder, 1)
    flows.plain(folder, "after", 1)
    return flows.held(folder, dq.current().run, 4)


def test_a_fork_behind_a_checkpoint_outlives_its_host(engine: dq.Engine, tmp_path: Path) -> None:
    """Its host has leased ids below those of the copies, and all that it asks for must be found behind the checkpoint."""
    (tmp_path / "open-original").touch()
    assert engine.start(chapters, str(tmp_path), id="original").result(30) == 40
    copy = engine.fork("original", "plain#2", new_id="copy")
    wait_until(lambda: flows.begins(tmp_path, "copy"))
    [host] = [member.pid for member in engine.census().rows if member.kind == "host"]
    os.kill(host, signal.SIGKILL)
    (tmp_path / "open-copy").touch()
    assert copy.result(30) == 40
    assert [flows.begins(tmp_path, name) for name in ("chapter0", "chapter1", "after")] == [1, 2, 2]


def test_a_cancelled_run_is_retried(engine: dq.Engine, tmp_path: Path) -> None:
    run = engine.start(flows.three, str(tmp_path), id="t")
    wait_until(lambda: flows.begins(tmp_path, "second"))
    run.cancel()
    with pytest.raises(dq.Cancelled):
        run.result(30)
    (tmp_path / "open-second").touch()
    assert engine.retry("t").result(30) == 11
    assert flows.begins(tmp_path, "first") == 1


def test_the_commands_work_with_and_without_a_supervisor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = str(tmp_path / "f.db")
    with dq.Engine(db, workers=1) as engine:
        assert engine.start(flows.single, id="s").result(30) == 1
    assert main(["fork", "s", "--from", "one", "--json", "--db", db]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": "s~2", "forked_from": "s"}
    with dq.Engine(db, workers=1) as engine:
        assert engine.get("s~2").result(30) == 1
        assert main(["fork", "s", "--set", '{"a": 1}', "--id", "odd", "--db", db]) == 0
        assert capsys.readouterr().out == "odd\n"
        assert main(["fork", "s", "--set", "1", "--db", db]) == 2
        with pytest.raises(TypeError, match="unexpected keyword argument 'a'"):
            engine.get("odd").result(30)
        assert main(["retry", "s", "--db", db]) == 2
        assert "only a failed or cancelled one is retried" in capsys.readouterr().err
        assert main(["retry", "odd", "--db", db]) == 0
        assert capsys.readouterr().out == "odd~2\n"
    assert main(["show", "s~2", "--db", db, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forked_from"] == "s"


@pytest.mark.skipif(not _may_trace(), reason="strace is missing or may not attach here")
@pytest.mark.parametrize(("syscall", "when"), [("pwrite64", 3), ("fdatasync", 1)])
def test_a_fork_is_whole_or_not_there(tmp_path: Path, syscall: str, when: int) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        engine.start(flows.wide, str(tmp_path), 3, id="w")
        for name in ("w0", "w1", "w2"):
            (tmp_path / f"open-{name}").touch()
        assert engine.get("w").result(30) == [0, 10, 20]
        first = engine.census().rows[0].pid
        tracer = attach(first, syscall, f"signal=KILL:when={when}", tmp_path / "trace")
        run = engine.fork("w", "held#3", new_id="copy")
        told = "SELECT count(*) FROM dq_step WHERE run = (SELECT id FROM dq_run WHERE name = 'copy')"
        assert rows(tmp_path / "f.db", told)[0][0] >= 2
        assert run.result(30) == [0, 10, 20]
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
        assert engine.census().rows[0].pid != first
    assert rows(tmp_path / "f.db", told) == [(3,)]
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_step WHERE run NOT IN (SELECT id FROM dq_run)") == [(0,)]
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_run") == [(2,)]
    assert flows.begins(tmp_path, "w0") == 1
