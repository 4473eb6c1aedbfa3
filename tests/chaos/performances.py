"""`dq chaos` as a user starts it, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.process.crews import ROOT

FINDINGS = ("lost", "unfinished", "repeated", "overlaps", "orphans", "wrong")


def chaos(
    place: Path, *words: str, program: tuple[str, ...] = ("dq",), patience: float = 110
) -> subprocess.CompletedProcess[str]:
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]), NO_COLOR="1")
    return subprocess.run(
        [sys.executable, "-m", *program, "chaos", *words],
        cwd=place, env=environ, text=True, capture_output=True, timeout=patience, check=False,
    )  # fmt: skip


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The verdict, of --json."""
    assert done.stdout, done.stderr
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict
