"""The demo's judge must see every kind of broken promise: each test breaks one and nothing else."""

from __future__ import annotations

import contextlib
import json
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dq.cli.demo import judge
from dq.cli.demo.measure import digest
from dq.executor import blobs
from dq.model.payload import FAILURE, FILE, PICKLE, seal
from dq.store import store

SCHEMA = "".join(Path(store.__file__).with_name(name).read_text() for name in ("schema.sql", "views.sql"))
EPOCH = 1 << 40
RUN = 7
STEPS = (11, 12, 13)


class Stage:
    """A run of three steps that went well: in the file, and in the log."""

    def __init__(self, folder: Path) -> None:
        self.db = str(folder / "demo.db")
        self.log = folder / "demo.log"
        self.lines: list[list[Any]] = []
        self.values = {step: {"step": step, "text": "ä\n"} for step in STEPS}
        with self.open() as file:
            file.executescript(SCHEMA)
            payload = seal(PICKLE, pickle.dumps({"all": 3}, 5))
            file.execute(
                "INSERT INTO dq_run (id, name, function, args, fingerprint, state, created_at, ended_at, payload) "
                "VALUES (?, 'demo', 1, ?, ?, 'completed', 1, 9, ?)",
                (RUN, b"", b"", payload),
            )
            for index, step in enumerate(STEPS):
                file.execute("INSERT INTO dq_step VALUES (?, ?, 1, '0', ?, ?, ?, 1)", (step, RUN, index, b"", b""))
                self.record(file, step, EPOCH + step, seal(PICKLE, pickle.dumps(self.values[step], 5)))
        for index, step in enumerate(STEPS):
            self.body(step, EPOCH + step, at=1000 * index)
            self.tell(f"file:{step}", self.values[step], at=1000 * index + 500)
        self.tell("run", {"all": 3}, at=9000)

    @contextlib.contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.db)) as file, file:
            yield file

    def change(self, sql: str, *values: object) -> None:
        with self.open() as file:
            assert file.execute(sql, values).rowcount > 0

    @staticmethod
    def record(file: sqlite3.Connection, step: int, epoch: int, payload: bytes) -> None:
        row = (step, 1, "completed", 1, epoch, 50, 1, 2, payload)
        file.execute("INSERT INTO dq_result VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def body(self, step: int, epoch: int, *, at: int, pid: int = 50, ends: bool = True, label: str = "") -> None:
        self.lines.append(["begin", step, 1, epoch, pid, at, label or f"file:{step}"])
        if ends:
            self.lines.append(["end", step, 1, epoch, pid, at + 100, digest(self.values.get(step))])

    def tell(self, label: str, value: object, *, at: int) -> None:
        self.lines.append(["told", label, digest(value), 1, at])

    def judge(self) -> dict[str, Any]:
        self.log.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return judge.judge(self.db, "demo", str(self.log))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_run_that_went_well_has_no_problems(stage: Stage) -> None:
    verdict = stage.judge()
    assert verdict["problems"] == []
    assert (verdict["steps"], verdict["retried"], verdict["repeated"], verdict["lost"]) == (3, 0, 0, 0)
    assert verdict["digest"] == digest({"all": 3})


def test_a_body_that_was_cut_off_is_retried_and_no_problem(stage: Stage) -> None:
    stage.lines.insert(0, ["begin", 11, 1, EPOCH + 1, 49, -900, "file:11"])
    stage.lines.insert(1, ["killed", "worker", 49, -800])
    verdict = stage.judge()
    assert verdict["problems"] == []
    assert (verdict["retried"], verdict["in_body"], verdict["kills"]) == (1, 1, {"worker": 1})


def test_a_body_that_ended_without_being_recorded_is_retried(stage: Stage) -> None:
    stage.lines[:0] = [["begin", 11, 1, EPOCH + 1, 49, -900, "file:11"], ["end", 11, 1, EPOCH + 1, 49, -800, "x"]]
    stage.lines.append(["killed", "worker", 49, -700])
    verdict = stage.judge()
    assert verdict["problems"] == []
    assert (verdict["retried"], verdict["in_body"], verdict["kills"]) == (1, 0, {"worker": 1})


def test_a_body_under_a_later_claim_than_the_recorded_one_is_a_repeat(stage: Stage) -> None:
    stage.body(12, EPOCH + 99, at=8000)
    assert stage.judge()["repeated"] == 1


def test_a_body_that_begins_after_the_recorded_one_ended_is_a_repeat_whatever_its_claim(stage: Stage) -> None:
    stage.body(12, EPOCH + 1, at=8000)
    assert stage.judge()["repeated"] == 1


def test_a_second_body_under_the_recorded_claim_is_a_repeat(stage: Stage) -> None:
    stage.lines.insert(0, ["begin", 12, 1, EPOCH + 12, 51, 1, "file:12"])
    assert stage.judge()["repeated"] == 1


def test_one_piece_of_work_as_two_steps_is_a_repeat(stage: Stage) -> None:
    stage.values[14] = stage.values[11]
    with stage.open() as file:
        file.execute("INSERT INTO dq_step VALUES (14, ?, 1, '0', 9, ?, ?, 1)", (RUN, b"", b""))
        stage.record(file, 14, EPOCH + 14, seal(PICKLE, pickle.dumps(stage.values[14], 5)))
    stage.body(14, EPOCH + 14, at=8000, label="file:11")
    assert stage.judge()["repeated"] == 1


def test_two_bodies_of_a_step_at_once_are_a_problem(stage: Stage) -> None:
    stage.lines[:0] = [["begin", 12, 1, EPOCH + 1, 49, 900, "file:12"], ["end", 12, 1, EPOCH + 1, 49, 1050, "x"]]
    assert stage.judge()["problems"] == ["step 12 ran twice at once"]


@pytest.mark.parametrize("sql", ["DELETE FROM dq_result WHERE step = ?", "DELETE FROM dq_step WHERE id = ?"])
def test_a_result_that_was_told_and_is_gone_is_lost(stage: Stage, sql: str) -> None:
    stage.change(sql, 12)
    verdict = stage.judge()
    assert verdict["lost"] == 1
    assert "file:12" in verdict["problems"][0]


def test_a_result_that_was_told_and_is_another_is_lost(stage: Stage) -> None:
    stage.change("UPDATE dq_result SET payload = ? WHERE step = 12", seal(PICKLE, pickle.dumps("other", 5)))
    verdict = stage.judge()
    assert verdict["lost"] == 1
    assert "step 12 has another result than its body had" in verdict["problems"]


def test_a_result_that_was_told_of_work_that_nobody_began_is_lost(stage: Stage) -> None:
    stage.tell("file:99", 1, at=9000)
    assert stage.judge()["lost"] == 1


@pytest.mark.parametrize(
    "payload",
    [seal(PICKLE, pickle.dumps({"all": 4}, 5)), seal(FAILURE, b""), b"p1234garbage", b""],
    ids=["other", "failure", "damaged", "empty"],
)
def test_a_result_of_the_run_that_was_told_and_is_another_is_lost(stage: Stage, payload: bytes) -> None:
    stage.change("UPDATE dq_run SET payload = ?", payload)
    assert stage.judge()["lost"] == 1


def test_a_run_that_was_told_to_be_done_and_is_not_is_lost(stage: Stage) -> None:
    stage.change("UPDATE dq_run SET state = 'running', ended_at = NULL, payload = NULL")
    verdict = stage.judge()
    assert verdict["lost"] == 1
    assert "the run is running" in verdict["problems"]


def test_a_run_that_is_not_there_is_a_problem(stage: Stage) -> None:
    stage.change("UPDATE dq_run SET name = 'other'")
    assert "the file has no run demo" in stage.judge()["problems"]


def test_a_result_without_a_body_is_a_problem(stage: Stage) -> None:
    stage.lines = [line for line in stage.lines if line[:2] != ["end", 12]]
    assert stage.judge()["problems"] == ["step 12 has a result, and no body of that claim came to its end"]


def test_a_body_whose_step_is_not_in_the_file_is_a_problem(stage: Stage) -> None:
    stage.body(77, EPOCH + 77, at=1)
    assert "step 77 was begun and is not in the file" in stage.judge()["problems"]


def test_a_step_that_failed_is_a_problem(stage: Stage) -> None:
    stage.change("UPDATE dq_result SET state = 'failed' WHERE step = 13")
    assert "step 13 is failed" in stage.judge()["problems"]


def test_a_damaged_result_is_a_problem(stage: Stage) -> None:
    stage.change("UPDATE dq_result SET payload = CAST(payload || x'00' AS BLOB) WHERE step = 13")
    assert any("step 13 is damaged" in problem for problem in stage.judge()["problems"])


def test_a_result_that_would_run_code_is_not_opened(stage: Stage) -> None:
    stage.change("UPDATE dq_result SET payload = ? WHERE step = 13", seal(PICKLE, pickle.dumps(print, 5)))
    assert any("has no place in a result" in problem for problem in stage.judge()["problems"])


def test_a_line_that_is_not_of_the_log_is_a_problem(stage: Stage) -> None:
    stage.lines.append(["what"])
    assert any("line" in problem for problem in stage.judge()["problems"])


def put_aside(stage: Stage) -> Path:
    """Moves the result of step 13 into a side file."""
    body = blobs.write(f"{stage.db}.blobs", "s13-e1", pickle.dumps(stage.values[13], 5), [])
    stage.change("UPDATE dq_result SET payload = ? WHERE step = 13", seal(FILE, body))
    return next(path for path in Path(f"{stage.db}.blobs").glob("*/*") if path.is_file())


def test_a_result_in_a_side_file_is_read(stage: Stage) -> None:
    put_aside(stage)
    assert stage.judge()["problems"] == []


@pytest.mark.parametrize(
    "harm",
    [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!")],
    ids=["gone", "empty", "altered"],
)
def test_a_side_file_that_is_not_as_recorded_is_a_loss(stage: Stage, harm: Callable[[Path], object]) -> None:
    harm(put_aside(stage))
    verdict = stage.judge()
    assert verdict["lost"] == 1
    assert any("side file" in problem for problem in verdict["problems"])


@pytest.mark.parametrize(("tampered", "code"), [(False, 0), (True, 1)])
def test_the_judge_is_a_script_that_knows_nothing_of_dq(stage: Stage, tampered: bool, code: int) -> None:
    stage.judge()
    if tampered:
        stage.change("DELETE FROM dq_result WHERE step = 12")
    program = "import runpy, sys; sys.modules['dq'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-I", "-c", program, judge.__file__, stage.db, "demo", str(stage.log)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    assert done.returncode == code
    assert json.loads(done.stdout)["lost"] == code
