"""Nobody opens a pickle but who runs user code or has asked for a value: not the supervisor, not the commands that list."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dq
from dq.cli.main import main
from tests.process.crews import rows, serving
from tests.security import plants, unsafeflows
from tests.tidy.sources import SHIPPED, files, name, tree

# Who may load a pickle: workers and hosts, and whoever has asked for a value. The supervisor imports the codec nowhere.
LOADERS = {
    "dq/executor/blobs.py", "dq/executor/codec.py", "dq/executor/failures.py", "dq/executor/functions.py",
    "dq/executor/retrying.py",
    "dq/cli/demo/judge.py",  # with an unpickler that finds no class
}  # fmt: skip
_LOADS = {"load", "loads", "Unpickler"}
_HOOKED = """
import os, sys
seen = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
sys.addaudithook(lambda event, told: os.write(seen, f"{told[1]}\\n".encode()) if event == "pickle.find_class" else None)
import pickle
pickle.loads(pickle.dumps(len))
from dq.crew.__main__ import main
code = main(["--db", sys.argv[2], "--workers", "1", "--ready-fd", sys.argv[3]])
os._exit(code)
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    db = tmp_path_factory.mktemp("filled") / "F.db"
    unsafeflows.fill(str(db))
    return db


@pytest.fixture
def planted(filled: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A tampered file, and the marker that must not come to be."""
    db, marker = tmp_path / "F.db", tmp_path / "marker"
    db.write_bytes(filled.read_bytes())
    if os.path.exists(f"{filled}-wal"):
        Path(f"{db}-wal").write_bytes(Path(f"{filled}-wal").read_bytes())
    plants.plant(db, marker)
    yield db, marker
    assert not marker.exists(), "somebody has unpickled what was planted"


def test_a_planted_payload_leaves_its_marker_where_it_is_opened(tmp_path: Path) -> None:
    from dq.executor.codec import Codec

    Codec().loads(plants.value(tmp_path / "one"))
    Codec().restore(plants.failure(tmp_path / "two"))
    assert (tmp_path / "one").exists()
    assert (tmp_path / "two").exists()


def test_every_column_of_bytes_is_planted_or_known_to_be_none(filled: Path) -> None:
    found = plants.columns(filled)
    assert found >= plants.PLACES
    assert {column for table, column in found if (table, column) not in plants.PLACES} <= plants.HASHES


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["text", "json"])
def test_commands_that_look_open_nothing(
    planted: tuple[Path, Path], json: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    db, _ = planted
    (letter,) = rows(db, "SELECT step FROM dq_result JOIN dq_step ON id = step WHERE state = 'failed' AND run IS NULL")[
        0
    ]
    words = [
        ["ls"], ["ls", "--open"], ["show", "done"], ["show", "fails"], ["show", "waits"], ["show", str(letter)], ["dead", "ls"],
        ["dead", "ls", "--group"], ["dead", "show", str(letter)], ["dead", "show", "fails"], ["doctor"], ["queues"],
        ["schedules"], ["backup", f"{db}.copy"],
    ]  # fmt: skip
    for line in words:
        assert main([*line, "--db", str(db), *json]) in (0, 1), line
    told = capsys.readouterr()
    assert "fails" in told.out
    assert "ValueError" in told.out


def test_commands_that_change_something_open_nothing(planted: tuple[Path, Path]) -> None:
    """Nobody works on the file, so that each starts a supervisor that takes down what is asked."""
    db, _ = planted
    (letter,) = rows(db, "SELECT step FROM dq_result JOIN dq_step ON id = step WHERE state = 'failed' AND run IS NULL")[
        0
    ]
    with serving(db, "--workers", "0") as process:
        for line in (
            ["retry", "fails"], ["fork", "done"], ["dead", "retry", str(letter)], ["signal", "waits", "go", "1"],
            ["resume", "waits"], ["cancel", "waits"], ["schedules", "trigger", "yearly"], ["gc", "--older-than", "0s", "--dry-run"],
            ["gc", "--older-than", "0s"],
        ):  # fmt: skip
            assert main([*line, "--db", str(db)]) == 0, line
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_supervisor_looks_up_no_class(tmp_path: Path) -> None:
    """An audit hook in it hears of every class that an unpickler asks for, through claims, results, failures, a crash and a restart."""
    db, seen = tmp_path / "F.db", tmp_path / "seen"
    for _boot in range(2):
        process = _hooked(seen, db)
        try:
            with dq.Client(db) as client:
                assert client.start(unsafeflows.done).result(30) == 3
                assert isinstance(client.submit(unsafeflows.refuse).exception(30), ValueError)
                assert client.submit(sorted, [Path("b"), Path("a")]).result(30) == [Path("a"), Path("b")]
                client.start(unsafeflows.waits, id="waits")
                assert isinstance(client.submit(os._exit, 3).exception(30), dq.StepCrashed)
        finally:
            os.kill(process.pid, signal.SIGTERM)
            process.wait(30)
    assert seen.read_text().splitlines() == ["len", "len"], "each boot's own try, and nothing else"


def _hooked(seen: Path, db: Path) -> subprocess.Popen[bytes]:
    ours, theirs = os.pipe()
    command = [sys.executable, "-P", "-c", _HOOKED, str(seen), str(db), str(theirs)]
    process = subprocess.Popen(command, pass_fds=[theirs], start_new_session=True)
    os.close(theirs)
    with open(ours) as pipe:
        assert '"error": null' in pipe.readline()
    return process


def test_only_known_modules_load_pickles() -> None:
    found = {
        name(path)
        for path in files(*SHIPPED)
        if "dq/testing" not in name(path)
        for node in ast.walk(tree(path))
        if (
            isinstance(node, ast.Attribute)
            and node.attr in _LOADS
            and ast.unparse(node.value) in {"pickle", "cloudpickle", "_pickle", "marshal", "shelve", "dill"}
        )
        or (
            isinstance(node, ast.ImportFrom)
            and node.module in {"pickle", "cloudpickle", "_pickle", "marshal", "shelve"}
        )
    }
    assert found == LOADERS
