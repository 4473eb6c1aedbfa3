"""Scripts and modules that dq can't import: their author is told, nothing is lost, and it goes on when they are mended."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import dq
from tests.process.crews import rows
from tests.waiting import wait_until

NO_GUARD = """
import os
import dq

with open("imports", "a") as log:
    log.write(f"{os.getpid()}\\n")

@dq.step
def double(number):
    return 2 * number

@dq.workflow
def doubled(number):
    return double(number)

"""
ENGINE = """
with dq.Engine("f.db", workers=2) as engine:
    print(engine.start(doubled, 21, id="r").result(50))
"""
POOL = """
pool = dq.Executor("f.db", max_workers=2)
print(pool.submit(double, 21).result(50))
"""

FUSSY = """
import dq
import ledger

if __name__ != "__main__":
    ledger.look()

@dq.step
def double(number):
    return 2 * number

if __name__ == "__main__":
    with dq.Engine("f.db", workers=2) as engine:
        print(engine.submit(double, 21).result(50))
"""
TROUBLE = "def look():\n    raise RuntimeError('no ledger today')\n"


@contextmanager
def running(folder: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """The script as somebody would start it; what it says goes to `NAME.out` and `NAME.err`."""
    path = folder / script
    with open(path.with_suffix(".out"), "ab") as out, open(path.with_suffix(".err"), "ab") as err:
        process = subprocess.Popen([sys.executable, path], cwd=folder, stdout=out, stderr=err, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def finish(process: subprocess.Popen[Any]) -> int:
    return process.wait(50)


@pytest.mark.parametrize("program", [ENGINE, POOL], ids=["engine", "executor"])
def test_a_script_without_its_guard(tmp_path: Path, program: str) -> None:
    """It is told so, and does not start itself for ever. What it has submitted is done when the guard is there."""
    script = tmp_path / "script.py"
    script.write_text(NO_GUARD + program)
    with running(tmp_path, "script.py") as process:
        assert finish(process) == 1
    told = script.with_suffix(".err").read_text()
    assert "GuardMissing: dq imports" in told
    assert f"{script} to have" in told
    assert 'if __name__ == "__main__":' in told
    assert len((tmp_path / "imports").read_text().split()) == 2, "itself, and the template, once"
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_result") == [(0,)]

    body = program.strip().replace("\n", "\n    ")
    script.write_text(f'{NO_GUARD}\nif __name__ == "__main__":\n    {body}\n')
    with running(tmp_path, "script.py") as process:
        assert finish(process) == 0, script.with_suffix(".err").read_text()
    assert script.with_suffix(".out").read_text() == "42\n"
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_steps WHERE state <> 'completed'") == [(0,)]


def test_a_script_that_raises_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    script, said = tmp_path / "script.py", tmp_path / "script.err"
    (tmp_path / "ledger.py").write_text(TROUBLE)
    script.write_text(FUSSY)
    with running(tmp_path, "script.py") as process:
        wait_until(lambda: "its steps wait" in said.read_text())
        assert f"dq can't import {script}" in said.read_text()
        assert "RuntimeError: no ledger today" in said.read_text()
        assert "dq/crew" not in said.read_text(), "the traceback is of the script alone"
        wait_until(
            lambda: rows(tmp_path / "f.db", "SELECT name, state FROM dq_steps") == [("__main__:double", "pending")]
        )
        script.write_text(FUSSY.replace("ledger.look()", "pass"))
        assert finish(process) == 0
    assert said.read_text().count("its steps wait") == 1, "it is not told again and again"
    assert (tmp_path / "script.out").read_text() == "42\n"


def test_a_script_that_raises_goes_on_when_a_client_connects(tmp_path: Path) -> None:
    """What is mended is not the script, so nobody sees that; whoever comes next has dq look again."""
    (tmp_path / "ledger.py").write_text(TROUBLE)
    (tmp_path / "script.py").write_text(FUSSY)
    with running(tmp_path, "script.py") as first:
        wait_until(lambda: "its steps wait" in (tmp_path / "script.err").read_text())
        (tmp_path / "ledger.py").write_text("def look():\n    pass\n")
        with running(tmp_path, "script.py") as second:
            assert [finish(first), finish(second)] == [0, 0]
    assert (tmp_path / "script.out").read_text() == "42\n42\n"


@pytest.fixture
def ghost(tmp_path: Path) -> Iterator[Any]:
    """A module that this process has, and that nobody else can find."""
    folder = tmp_path / "attic"
    folder.mkdir()
    (folder / "ghost.py").write_text(
        "import dq\n"
        "@dq.step\ndef haunt(name):\n    return name\n"
        "@dq.workflow\ndef night(name):\n    return haunt(name)\n"
    )
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module("ghost")
    finally:
        sys.path.remove(str(folder))
    yield module
    del sys.modules["ghost"]


def test_a_step_that_the_worker_cannot_import(tmp_path: Path, ghost: Any) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        with pytest.raises(dq.NotImportable) as error:
            engine.submit(ghost.haunt, "attic").result(30)
        run = engine.start(ghost.night, "attic", id="r")
        with pytest.raises(dq.RunBlocked, match="NotImportable: module ghost") as blocked:
            run.result(30)
        assert engine.get("r").status == "blocked"
    for told in (str(error.value), str(blocked.value)):
        assert "module ghost of ghost:" in told
        assert "No module named 'ghost'" in told
        assert f"This is {sys.executable} with sys.path '" in told
        assert "PYTHONPATH" in told


def test_a_run_goes_on_when_its_module_can_be_imported(
    tmp_path: Path, ghost: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine, pytest.raises(dq.RunBlocked):
        engine.start(ghost.night, "attic", id="r").result(30)
    monkeypatch.syspath_prepend(tmp_path / "attic")
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        assert engine.start(ghost.night, "attic", id="r").result(30) == "attic"


def test_a_function_that_was_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are on record under a name that is gone fail with the name and the file."""
    (tmp_path / "shifty.py").write_text("def old(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    shifty = importlib.import_module("shifty")
    (tmp_path / "shifty.py").write_text("def new(x):\n    return x\n")
    with dq.Engine(tmp_path / "f.db", workers=1) as engine, pytest.raises(dq.NotImportable) as error:
        engine.submit(shifty.old, 1).result(30)
    del sys.modules["shifty"]
    assert f"{tmp_path}/shifty.py has no old" in str(error.value)
    assert "alias" in str(error.value)
