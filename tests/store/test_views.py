"""The views answer in any SQLite tool. It runs in a process of its own: two SQLite libraries in one are dangerous."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from dq.store.reader import AttemptLine, Reader, RunLine, StepLine
from dq.store.store import Store
from tests.store import rows

_ASK = """
import json, sqlite3, sys
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
db.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in db.execute(sys.argv[2])]))
"""


def _ask(path: str, query: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", _ASK, path, query], check=False, capture_output=True, text=True, timeout=30
    )
    assert not done.returncode, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture
def lived(store: Store) -> Store:
    """A run with a step in each state, and a batch."""
    tokens = [rows.epoch(store, number) for number in range(4)]
    store.commit(rows.run(1, "movie-1"))
    store.commit(rows.flow_steps(1, [2, 3, 4, 5]))
    store.commit(rows.claim(tokens[0], [2]))
    store.commit(rows.crash(2, tokens[0]))
    store.commit(rows.claim(tokens[1], [2], attempt=2))
    store.commit(rows.results(tokens[1], [2], seq=1, attempt=2))
    store.commit(rows.claim(tokens[2], [3]))
    store.commit(rows.crash(3, tokens[2]))
    store.commit(rows.results(0, [3], "dead", seq=2))
    store.commit(rows.claim(tokens[3], [4]))
    store.commit(rows.batch(6, 7))
    store.commit(rows.results(0, [6], "cancelled", attempt=0))
    return store


def test_dq_steps(lived: Store, path: str) -> None:
    found = {row["id"]: row for row in _ask(path, "SELECT * FROM dq_steps")}
    assert {id: row["state"] for id, row in found.items()} == {
        2: "completed",
        3: "dead",
        4: "claimed",
        5: "pending",
        6: "cancelled",
        7: "pending",
    }
    assert found[2] == {
        "id": 2,
        "name": "flow:render",
        "run": "movie-1",
        "run_id": 1,
        "scope": "0",
        "occurrence": 0,
        "state": "completed",
        "attempt": 2,
        "pid": 77,
        "epoch": rows.epoch(lived, 1),
        "seq": 1,
        "created_at": rows.NOW,
        "claimed_at": None,
        "began_at": rows.NOW + 5,
        "ended_at": rows.NOW + 7,
    }
    assert (found[4]["pid"], found[4]["claimed_at"], found[4]["epoch"]) == (77, rows.NOW, rows.epoch(lived, 3))
    assert (found[5]["attempt"], found[5]["pid"]) == (0, None)
    assert (found[7]["run"], found[7]["run_id"]) == (None, None)


@pytest.mark.usefixtures("lived")
def test_dq_runs(path: str) -> None:
    assert _ask(path, "SELECT * FROM dq_runs") == [
        {
            "id": 1,
            "name": "movie-1",
            "workflow": "flow:movie",
            "state": "running",
            "steps": 4,
            "done": 2,
            "created_at": rows.NOW,
            "ended_at": None,
            "reason": None,
        }
    ]


@pytest.mark.usefixtures("lived")
def test_dq_attempts(path: str) -> None:
    found = _ask(path, "SELECT step, attempt, outcome, charged, cause FROM dq_attempts ORDER BY step, attempt")
    assert [tuple(row.values()) for row in found] == [
        (2, 1, "crashed", 1, "killed by signal 9"),
        (2, 2, "completed", 0, None),
        (3, 1, "crashed", 1, "killed by signal 9"),
        (4, 1, None, 0, None),
    ]


def test_a_step_in_two_claims_is_shown_once(store: Store, path: str) -> None:
    """What a worker gave back stays listed in its claim until that ends."""
    store.commit(rows.batch(1, 1))
    store.commit(rows.claim(rows.epoch(store, 1), [1]))
    store.commit(rows.claim(rows.epoch(store, 2), [1], pid=78))
    assert [(row["id"], row["pid"]) for row in _ask(path, "SELECT id, pid FROM dq_steps")] == [(1, 78)]


@pytest.mark.usefixtures("lived")
@pytest.mark.parametrize(("view", "line"), [("dq_runs", RunLine), ("dq_steps", StepLine), ("dq_attempts", AttemptLine)])
def test_the_reader_s_lines_are_columns_of_the_views(
    path: str, view: str, line: type[RunLine | StepLine | AttemptLine]
) -> None:
    assert set(line._fields) <= set(_ask(path, f"SELECT * FROM {view}")[0])


@pytest.mark.usefixtures("lived")
def test_the_reader_shows_the_same(path: str) -> None:
    with Reader.open(path) as reader:
        (run,) = reader.runs()
        assert (run.name, run.state, run.done, run.steps) == ("movie-1", "running", 2, 4)
        assert [(step.id, step.state) for step in reader.steps(run.id)] == [
            (2, "completed"),
            (3, "dead"),
            (4, "claimed"),
            (5, "pending"),
        ]
        assert [step.id for step in reader.steps(run.id, after=3, limit=1)] == [4]
        assert [(step.id, step.state) for step in reader.open_steps()] == [(7, "pending")]
        assert [attempt.outcome for attempt in reader.attempts(2)] == ["crashed", "completed"]
        assert tuple(reader.step_counts()) == (6, 3, 1)
        assert reader.run_counts() == {"running": 1}
        assert reader.step_result(2) == ("completed", rows.RESULT)
        assert reader.step_result(5) is None
        assert reader.engine().boot_epoch == 1
        step = reader.step(2)
        assert step is not None
        assert step.attempt == 2
        assert reader.step(99) is None
