"""What people install holds all that dq needs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.tidy.sources import ROOT, SHIPPED, files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (built,) = folder.glob("*.whl")
    return zipfile.Path(built)


def test_the_wheel_holds_every_shipped_file(wheel: zipfile.Path) -> None:
    names = set(wheel.root.namelist())
    expected = {
        str(path.relative_to(ROOT)).removeprefix("executors/")
        for suffix in (".py", ".sql", ".typed")
        for path in files(*SHIPPED, suffix=suffix)
    }
    assert {"dq/py.typed", "dq/store/schema.sql", "dq_executors/py.typed"} <= expected
    assert names >= expected
    assert {Path(name).parts[0] for name in names} == {"dq", "dq_executors", "dq_durable-0.1.0.dist-info"}


def test_the_wheel_names_its_licence_its_command_and_its_executors(wheel: zipfile.Path) -> None:
    info = wheel / "dq_durable-0.1.0.dist-info"
    assert "License-Expression: Apache-2.0" in (info / "METADATA").read_text()
    assert (info / "licenses" / "LICENSE").is_file()
    entries = (info / "entry_points.txt").read_text()
    assert "[dq.executors]" in entries
    assert "process = dq_executors.process:ProcessExecutor" in entries
    assert "dq = dq.cli.main:main" in entries
