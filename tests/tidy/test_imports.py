"""Imports go one way, and the watch over that would see one that does not."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.sources import ROOT, SHIPPED, files, name, tree

_DOORS = {ROOT / "dq", ROOT / "dq" / "testing"}  # what other people import
_UNPICKLERS = {
    f"{module}.{name}" for module in ("pickle", "cloudpickle", "marshal") for name in ("load", "loads", "Unpickler")
}


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": f"{folder}:{folder / 'executors'}"}
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=100)


def test_the_contracts_hold() -> None:
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("dq/store/trespass.py", "import dq.crew", "Rooms import only downwards"),
        ("dq/flow/trespass.py", "import apsw", "Only the store speaks SQLite"),
        ("dq/executor/trespass.py", "import sqlite3", "No second SQLite"),
        ("dq/client/trespass.py", "import dq_executors", "dq never knows an executor"),
        ("executors/dq_executors/trespass.py", "import dq.flow", "Executors know the contract and the model only"),
    ],
    ids=["upwards", "apsw", "sqlite3", "executors", "plug-in"],
)
def test_a_trespass_is_seen(tmp_path: Path, module: str, line: str, contract: str) -> None:
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "dq", tmp_path / "dq", ignore=skip)
    shutil.copytree(ROOT / "executors", tmp_path / "executors", ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / module).write_text(line + "\n")
    done = _lint(tmp_path)
    assert done.returncode == 1
    broken = [text for text in done.stdout.splitlines() if text.endswith("BROKEN")]
    assert any(text.startswith(contract) for text in broken), done.stdout[-2000:]


def test_rooms_say_what_they_are_and_hold_nothing_else() -> None:
    for path in files(*SHIPPED):
        if path.name == "__init__.py" and path.parent not in _DOORS:
            body = tree(path).body
            assert len(body) == 1, f"{name(path)} holds code"
            assert ast.get_docstring(tree(path)), f"{name(path)} does not say what the room is"


def test_who_passes_payloads_on_never_unpickles_them() -> None:
    """Supervisor, store and command line see bytes; the demo's judge opens results with an unpickler that runs nothing."""
    opened = [
        f"{name(path)}:{node.lineno}"
        for path in files("dq/crew", "dq/store", "dq/cli")
        if name(path) != "dq/cli/demo/judge.py"
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.ImportFrom) and node.module == "dq.executor.codec")
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in _UNPICKLERS)
    ]
    assert not opened
