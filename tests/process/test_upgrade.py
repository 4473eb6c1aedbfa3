"""A file of an earlier version goes on where its last supervisor stopped."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import dq
from tests.process.crews import rows

_OLD = Path(__file__).resolve().parents[1] / "store" / "files" / "schema-1.db"
_FLOWS = """
import dq

@dq.step
def add(a, b):
    open("added", "w").close()
    return a + b

@dq.step(max_crashes=100)
def gate(n):
    return n * 10

@dq.workflow
def open_(n):
    return gate(add(n, 1))
"""


def test_an_unfinished_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    db = Path(shutil.copy(_OLD, tmp_path / "f.db"))
    (tmp_path / "flows1.py").write_text(_FLOWS)
    with closing(connect(db)) as file, file:  # the folder in which it was made is gone
        path = json.dumps([str(tmp_path), *sys.path])
        file.execute(
            "UPDATE dq_context SET python = ?, script = '', cwd = ?, path = ?", (sys.executable, str(tmp_path), path)
        )
    with dq.Engine(db, workers=1) as engine:
        assert engine.get("open-1").result(30) == 60
        assert engine.get("done-1").result(30) == 6
    assert not (tmp_path / "added").exists(), "what was completed is not repeated"
    assert rows(db, "SELECT name, state FROM dq_runs ORDER BY name") == [
        ("done-1", "completed"),
        ("open-1", "completed"),
    ]
