"""The examples of the README do what it says."""

from __future__ import annotations

import ast
import hashlib
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def _run(folder: Path, text: str) -> str:
    script = folder / "example.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_workflow_runs_once_however_often_its_script_is_started(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("print('hello')\n")
    first = _run(tmp_path, _EXAMPLES[0])
    digests = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("example.py", "other.py")}
    assert ast.literal_eval(first) == digests
    assert _run(tmp_path, _EXAMPLES[0]) == first
    with closing(sqlite3.connect(f"file:{tmp_path / 'inventory.db'}?mode=ro", uri=True)) as file:
        assert file.execute("SELECT name, state, steps, done FROM dq_runs").fetchall() == [
            ("inventory-1", "completed", 3, 3)
        ]


def test_the_pool_computes(tmp_path: Path) -> None:
    assert _run(tmp_path, _EXAMPLES[2]) == str(sum(number * number for number in range(1000)))
    with closing(sqlite3.connect(f"file:{tmp_path / 'squares.db'}?mode=ro", uri=True)) as file:
        assert file.execute("SELECT count(*) FROM dq_steps WHERE state = 'completed'").fetchone() == (1000,)


def test_a_purchase_is_charged_and_approved(tmp_path: Path) -> None:
    assert re.fullmatch(r"order-7:1200:[0-9a-f]{32}", _run(tmp_path, _EXAMPLES[1]))


def test_the_first_example_is_short() -> None:
    code = [line for line in _EXAMPLES[0].splitlines() if line.strip()]
    assert len(code) <= 20
