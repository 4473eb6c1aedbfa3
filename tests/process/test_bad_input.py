"""What users hand over by mistake is refused at the door, or fails its own step, with a message that says why."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest

import dq
from tests.process import misfits


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[dq.Engine]:
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        yield engine


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(dq.NoSuchFolder, match=r"mkdir -p .*/nowhere"):
        dq.Engine(tmp_path / "nowhere" / "f.db")


def test_a_folder_and_a_text_file_are_no_databases(tmp_path: Path) -> None:
    with pytest.raises(dq.NotADatabase, match="folder"):
        dq.Engine(tmp_path)
    (tmp_path / "notes.db").write_text("to do: buy milk\n" * 200)
    with pytest.raises(dq.NotADatabase, match="Choose another path"):
        dq.Engine(tmp_path / "notes.db")
    assert (tmp_path / "notes.db").read_text() == "to do: buy milk\n" * 200


def test_the_database_of_another_application(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE albums (title TEXT)")
        other.commit()
    with pytest.raises(dq.ForeignDatabase):
        dq.Engine(tmp_path / "other.db")
    with closing(connect(tmp_path / "other.db")) as other:
        assert [row[0] for row in other.execute("SELECT name FROM sqlite_schema")] == ["albums"]


def test_a_newer_schema(tmp_path: Path) -> None:
    dq.Engine(tmp_path / "f.db", workers=0).close()
    with closing(connect(tmp_path / "f.db")) as newer:
        newer.execute("PRAGMA user_version = 9999")
    with pytest.raises(dq.NewerSchema):
        dq.Engine(tmp_path / "f.db")


def test_a_second_supervisor_names_the_first(engine: dq.Engine) -> None:
    [first] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
    command = [sys.executable, "-P", "-m", "dq.crew", "--db", str(engine.path)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 75
    assert str(first) in second.stderr
    assert engine.submit(misfits.double, 2).result(20) == 4


def test_a_second_engine_attaches(engine: dq.Engine) -> None:
    with dq.Engine(engine.path) as second:
        assert second.submit(misfits.double, 2).result(20) == 4
        assert second.census().rows[0].pid == engine.census().rows[0].pid
    assert engine.submit(misfits.double, 3).result(20) == 6


@pytest.mark.parametrize(
    ("arguments", "where"),
    [((threading.Lock(),), r"args\[0\]"), (({"a": [1, {"b": threading.Lock()}]},), r"args\[0\]\['a'\]\[1\]\['b'\]")],
)
def test_arguments_that_cannot_be_pickled(engine: dq.Engine, arguments: tuple[Any, ...], where: str) -> None:
    with pytest.raises(dq.NotPicklable, match=where):
        engine.submit(misfits.double, *arguments)
    with pytest.raises(dq.NotPicklable, match=where):
        engine.start(misfits.doubled, *arguments, id="r")
    assert engine.submit(misfits.double, 2).result(20) == 4


def test_results_and_inner_arguments_that_cannot_be_pickled(engine: dq.Engine) -> None:
    with pytest.raises(dq.NotPicklable, match=r"result\['rows'\]\[1\]: cannot pickle"):
        engine.submit(misfits.makes_a_lock).result(20)
    with pytest.raises(dq.NotPicklable, match=r"result\['rows'\]\[1\]: cannot pickle"):
        engine.start(misfits.locked_step).result(20)
    with pytest.raises(dq.NotPicklable, match=r"args\[0\]: cannot pickle"):
        engine.start(misfits.locked_argument).result(20)
    with pytest.raises(dq.NotPicklable, match=r"result: cannot pickle"):
        engine.start(misfits.locked_result).result(20)


def test_what_is_nested_too_deeply(engine: dq.Engine) -> None:
    with pytest.raises(dq.NotPicklable, match="nested too deeply"):
        engine.submit(misfits.too_deep).result(20)
    nest: list[Any] = []
    for _ in range(100_000):
        nest = [nest]
    with pytest.raises(dq.NotPicklable, match="nested too deeply"):
        engine.submit(misfits.length, nest)  # type: ignore[call-overload]
    while nest:
        nest = nest[0]  # taken apart bit by bit, since tearing it down at once recurses too


def test_a_step_that_ends_its_process(engine: dq.Engine) -> None:
    with pytest.raises(dq.StepError, match="SystemExit: 3"):
        engine.submit(misfits.exits).result(20)
    with pytest.raises(dq.StepCrashed, match="exited with code 7"):
        engine.submit(misfits.exits_hard).result(20)
    with pytest.raises(dq.StepCrashed, match="SIGSEGV") as crash:
        engine.submit(misfits.crashes).result(20)
    assert "in crashes" in str(crash.value), "the last stack is part of the evidence"
    assert engine.submit(misfits.double, 2).result(20) == 4
    with closing(connect(engine.path)) as file:
        rows = file.execute("SELECT outcome, charged, cause FROM dq_attempt ORDER BY ended_at").fetchall()
    assert [row[:2] for row in rows] == [("crashed", 1)] * 4
    assert all("peak memory" in row[2] for row in rows)


@pytest.mark.parametrize(
    ("id", "rule"),
    [
        ("", "may not be empty"),
        ("x" * 10_240, "512 characters"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("\ud800", "surrogate"),
        ("\U0001f3ac" * 400, "1024 bytes"),
        (7, "is a string"),
    ],
)
def test_ids_that_are_refused(engine: dq.Engine, id: Any, rule: str) -> None:
    with pytest.raises(dq.BadRunId, match=rule):
        engine.start(misfits.doubled, 1, id=id)
    with pytest.raises(dq.BadRunId):
        engine.get(id)


def test_an_id_may_be_an_emoji(engine: dq.Engine) -> None:
    assert engine.start(misfits.doubled, 4, id="\U0001f3ac").result(20) == 8
    assert engine.get("\U0001f3ac").result(20) == 8


def test_a_run_that_is_not_there(engine: dq.Engine) -> None:
    with pytest.raises(dq.NoSuchRun, match="dq ls"):
        engine.get("nobody")


def test_the_same_id_with_other_arguments_shows_both(engine: dq.Engine) -> None:
    assert engine.start(misfits.doubled, 4, id="r").result(20) == 8
    assert engine.start(misfits.doubled, 4, id="r").result(20) == 8
    with pytest.raises(dq.RunConflict) as conflict:
        engine.start(misfits.doubled, 5, id="r")
    assert "doubled(4)" in str(conflict.value)
    assert "doubled(5)" in str(conflict.value)
    with pytest.raises(dq.RunConflict, match="locked_result"):
        engine.start(misfits.locked_result, id="r")


def test_a_plain_function_is_no_workflow(engine: dq.Engine) -> None:
    with pytest.raises(TypeError, match=r"@dq\.workflow"):
        engine.start(len, "abc")


def test_an_executor_that_is_not_there(engine: dq.Engine) -> None:
    with pytest.raises(dq.BadExecutor, match=r"gpu.*--executor gpu="):
        engine.submit(misfits.double.options(executor="gpu"), 1).result(20)
    with pytest.raises(dq.BadExecutor, match="warp"):
        dq.Engine(Path(engine.path).with_name("g.db"), executors={"fast": "warp:9"})
