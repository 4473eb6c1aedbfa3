"""Files that are no database of dq's, and those that somebody works on: refused, named, and left as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

import dq
from tests.process import misfits


def pid_of(engine: dq.Engine) -> int:
    [pid] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
    return pid


def by_hand(db: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "dq.crew", "--db", str(db)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("opens", [dq.Engine, dq.Executor])
def test_no_such_folder(tmp_path: Path, opens: type[dq.Engine | dq.Executor]) -> None:
    with pytest.raises(dq.NoSuchFolder, match=r"mkdir -p .*/nowhere"):
        opens(tmp_path / "nowhere" / "f.db")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(dq.NotADatabase, match="it is a folder"):
        dq.Engine(tmp_path / "inner")
    assert os.listdir(tmp_path) == ["inner"]


@pytest.mark.parametrize("text", ["to do: buy milk\n" * 200, "short"], ids=["long", "short"])
def test_a_text_file_is_no_database(tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.db").write_text(text)
    with pytest.raises(dq.NotADatabase, match=r"dq leaves it as it is\. Choose another path"):
        dq.Engine(tmp_path / "notes.db")
    assert (tmp_path / "notes.db").read_text() == text
    told = by_hand(tmp_path / "notes.db")
    assert told.returncode == 3
    assert "is not an SQLite database" in told.stderr


def test_the_database_of_another_application(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE albums (title TEXT)")
        other.commit()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(dq.ForeignDatabase, match="another application"):
        dq.Engine(tmp_path / "other.db")
    assert (tmp_path / "other.db").read_bytes() == before


def test_a_newer_schema(tmp_path: Path) -> None:
    dq.Engine(tmp_path / "f.db", workers=0).close()
    with closing(connect(tmp_path / "f.db")) as newer:
        newer.execute("PRAGMA user_version = 9999")
    with pytest.raises(dq.NewerSchema, match="pip install -U dq-durable"):
        dq.Engine(tmp_path / "f.db")


def test_a_second_supervisor_names_the_first(engine: dq.Engine) -> None:
    second = by_hand(engine.path)
    assert second.returncode == 75
    assert f"the supervisor with pid {pid_of(engine)} works on it" in second.stderr
    assert f"`kill {pid_of(engine)}`" in second.stderr
    assert "Traceback" not in second.stderr
    assert engine.submit(misfits.double, 2).result(20) == 4


def test_a_second_engine_attaches(engine: dq.Engine) -> None:
    with dq.Engine(engine.path) as second:
        assert second.submit(misfits.double, 2).result(20) == 4
        assert pid_of(second) == pid_of(engine)
    assert engine.submit(misfits.double, 3).result(20) == 6


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    dq.Engine(tmp_path / "f.db", workers=0).close()
    (tmp_path / "link.db").symlink_to(tmp_path / "f.db")
    with pytest.raises(dq.UnsafePlace, match="symbolic link"):
        dq.Engine(tmp_path / "link.db")
    assert not (tmp_path / "link.db.lock").exists()
