"""Runs the small writer under strace: to watch its system calls, and to kill it or fail it at one of them."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALLS = ("pwrite64", "fdatasync", "ftruncate", "unlink", "write")
_LINE = re.compile(r"^\d+ +(\w+)\((?:\d+<([^>]*)>)?")


@functools.cache
def _works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def strace() -> None:
    """Skips where there is no strace or it may not trace."""
    if not _works():
        pytest.skip("strace is missing or may not trace here")


def run(folder: Path, groups: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the writer on `folder`/f.db; its acknowledgements are in `folder`/acks, the trace in `folder`/trace."""
    command = ["strace", "-f", "-y", "-o", str(folder / "trace"), *options]
    writer = [sys.executable, "-S", "-m", "tests.store.writer", str(folder / "f.db"), str(folder / "acks"), str(groups)]
    path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry.endswith("-packages"))])
    environ = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*command, *writer], cwd=folder, env=environ, check=False, capture_output=True, text=True, timeout=60
    )


def calls(folder: Path) -> list[tuple[str, str]]:
    """(system call, end of the path it was about) of the last run, such as ("fdatasync", "f.db-wal")."""
    found: list[tuple[str, str]] = []
    for line in (folder / "trace").read_text().splitlines():
        match = _LINE.match(line)
        if match and match[1] in CALLS:
            found.append((match[1], os.path.basename(match[2] or "")))
    return found


def acked(folder: Path) -> list[int]:
    """First ids of the groups that were acknowledged."""
    try:
        lines = (folder / "acks").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [int(line) for line in lines if not line.startswith("boot")]
