"""The demo, on a folder of its own: it kills, and its judge finds nothing lost, repeated or different."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process.crews import members


def demo(place: Path, *words: str) -> tuple[int, str, str]:
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), NO_COLOR="1")
    done = subprocess.run(
        [sys.executable, "-m", "dq", "demo", str(place / "sources"), "--db", str(place / "demo.db"), *words],
        cwd=place, env=environ, text=True, capture_output=True, timeout=110, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of a part of the standard library, and a file that does not parse."""
    sources = tmp_path / "sources"
    sources.mkdir()
    library = Path(os.__file__).parent
    for path in sorted(library.glob("*.py"))[:120]:
        (sources / path.name).write_bytes(path.read_bytes())
    (sources / "broken.py").write_text("def (:\n")
    return tmp_path


def test_it_kills_everybody_and_loses_nothing(place: Path) -> None:
    code, out, errors = demo(place, "--kills", "6", "--workers", "2", "--seed", "7", "--json")
    assert code == 0, errors
    told: dict[str, Any] = json.loads(out)
    assert told["files"] == 121
    assert sum(told["kills"].values()) == 6
    assert all(told["kills"][kind] >= 1 for kind in ("worker", "host", "template", "supervisor"))
    assert (told["lost"], told["repeated"], told["identical"]) == (0, 0, True)
    assert told["retried"] >= 1
    assert told["steps"] > 121
    assert members(place / "demo.db") == []
    reports = sorted(path.suffix for path in place.glob("demo-*"))
    assert ".json" in reports
    assert ".md" in reports


def test_without_chaos(place: Path) -> None:
    for path in sorted((place / "sources").glob("*.py"))[30:]:
        path.unlink()
    code, out, errors = demo(place, "--no-chaos", "--workers", "2")
    assert code == 0, errors
    assert "identical  yes" in out + errors


def test_a_folder_that_is_not_there_or_empty(place: Path) -> None:
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    for folder in (place / "gone", place):
        done = subprocess.run(
            [sys.executable, "-m", "dq", "demo", str(folder / "none"), "--db", str(place / "x.db")],
            env=environ, text=True, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
