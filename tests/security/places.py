"""A small program that leaves every kind of file behind that dq makes, and what a trace says of how it was made."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import dq

ROOT = Path(__file__).resolve().parents[2]
CALLS = "openat,open,creat,mkdir,mkdirat,bind,chmod,fchmod,fchmodat,umask,clone,clone3,fork,vfork"
PROGRAM = """
import os, sys
os.umask(0)
import dq
from tests.security import places

if __name__ == "__main__":
    with dq.Engine(sys.argv[1], workers=1) as engine:
        assert engine.submit(places.large, b"x" * 400_000).result(60)
        run = engine.start(places.published)
        assert run.result(60) == 1
        engine.backup(sys.argv[2])
"""
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
_PATH = re.compile(r'"([^"]*)"')


def script(folder: Path) -> Path:
    """The program, as a file."""
    made = folder / "program.py"
    made.write_text(PROGRAM)
    return made


def traced(folder: Path) -> list[tuple[str, str, str]]:
    """Runs the program under umask 0; (call, path, all arguments) of each call that could make something in `folder`."""
    trace = folder.parent / f"{folder.name}.trace"
    command = ["strace", "-f", "-qq", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(trace)]
    program = [sys.executable, str(script(folder)), str(folder / "F.db"), str(folder / "copy.db")]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*command, *program], env=environ, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    return [found for line in trace.read_text().splitlines() if (found := _parsed(line)) is not None]


def _parsed(line: str) -> tuple[str, str, str] | None:
    match = _CALL.match(line.replace(" <unfinished ...>", ") = 0"))
    if match is None or match[4].startswith("-"):
        return None
    path = _PATH.search(match[3])
    return match[2], path[1] if path else "", match[3]


@dq.step
def large(data: bytes) -> bytes:
    return data + b"!"


@dq.step
def one() -> int:
    return 1


@dq.workflow
def published() -> int:
    dq.publish("stage", "done")
    return one()
