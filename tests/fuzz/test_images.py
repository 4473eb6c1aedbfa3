"""Databases whose files are damaged: nobody crashes or hangs over them, and what is answered was stored there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import specimen
from tests.process.crews import ROOT
from tests.sweeps import tally

_FAST = "/dev/shm"  # these files are made and synced again and again, and no power cut is feared


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Holds a whole database in two states."""
    base = Path(tempfile.mkdtemp(prefix="dq-images-", dir=_FAST if Path(_FAST).is_dir() else tmp_path))
    specimen.make(base)
    yield base
    shutil.rmtree(base)


def examine(folder: Path, first: int, last: int) -> Iterator[tuple[int, str]]:
    """(number, what came of it) of each image; those that end the process have crashed, or hung, and the next one goes on."""
    while first < last:
        command = [sys.executable, "-m", "tests.fuzz.examiner", str(folder), str(first), str(last)]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False, text=True)
        lines = done.stdout.splitlines()
        for begun, ended in zip(lines[::2], lines[1::2], strict=False):
            yield int(begun.split()[0]), f"{ended} ({begun})"
        first += len(lines) // 2
        if first < last:
            yield first, f"crashed with {done.returncode}: {lines[-1] if lines else ''} {done.stderr[-500:]}"
            first += 1


@pytest.mark.parametrize(
    ("first", "count"), [(0, 120), *[pytest.param(part * 1000, 1000, marks=pytest.mark.soak) for part in range(1, 11)]]
)
def test_damaged_databases(folder: Path, first: int, count: int) -> None:
    """Each is opened by the reader, the commands that list, the doctor and the store: they answer rightly, or refuse."""
    began = time.monotonic()
    verdicts: Counter[str] = Counter()
    findings: list[str] = []
    for number, told in examine(folder, first, first + count):
        kind = told.split()[0]
        verdicts[kind] += 1
        if kind not in ("ok", "refused"):
            findings.append(f"{number}: {told}")
    tally(
        "corrupted database images", verdicts.total(), seeds=f"{first}-{first + count - 1}", began=began,
        crashed=verdicts["crashed"], wrong=verdicts["wrong"],
    )  # fmt: skip
    assert not findings, findings[:5]
    assert verdicts.total() == count
    assert verdicts["refused"] > count // 4, "damage was done"
    assert verdicts["ok"] > count // 20, "and not all of it matters"
