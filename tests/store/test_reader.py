"""Looking into a file that a supervisor writes, that nobody writes, and that nobody can write."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dq import errors
from dq.store.reader import Reader
from dq.store.store import Store
from tests.store import rows
from tests.store.mounts import remount, tmpfs


def _names(path: str | Path) -> list[str]:
    with Reader.open(path) as reader:
        return [run.name for run in reader.runs()]


def test_beside_a_writer(store: Store, path: str) -> None:
    assert _names(path) == []
    with Reader.open(path) as reader:
        store.commit(rows.run(1, "movie-1"))
        assert [run.name for run in reader.runs()] == ["movie-1"]
    store.commit(rows.run(2, "movie-2"))
    assert _names(path) == ["movie-2", "movie-1"]
    store.close(clean=True)


def test_nobody_keeps_the_log_from_being_emptied(store: Store, path: str) -> None:
    with Reader.open(path) as reader:
        store.commit(rows.run(1, "movie-1"))
        assert reader.runs()
        store._pages = 10**6
        store.checkpoint()
        assert store._pages == 0


def test_after_a_clean_stop_and_after_a_kill(path: str) -> None:
    for number, clean in ((1, True), (2, False)):
        store = Store.open(path)
        store.boot("boot-1")
        store.commit(rows.run(number, f"movie-{number}"))
        store.close(clean=clean)
        assert len(_names(path)) == number
    store = Store.open(path)
    assert store.boot("boot-1").unclean, "a reader changes nothing"
    store.close(clean=True)


def test_a_read_only_copy(path: str, tmp_path: Path) -> None:
    store = Store.open(path)
    store.boot("boot-1")
    store.commit(rows.run(1, "movie-1"))
    with tmpfs(tmp_path / "mount", "size=8m") as folder:
        shutil.copy(path, folder / "torn.db")
        shutil.copy(path + "-wal", folder / "torn.db-wal")
        store.close(clean=True)
        shutil.copy(path, folder / "whole.db")
        remount(folder, "ro")
        assert _names(folder / "whole.db") == ["movie-1"]
        assert _names(folder / "torn.db") == ["movie-1"]
        assert sorted(os.listdir(folder)) == ["torn.db", "torn.db-wal", "whole.db"]


def test_the_fallback_without_root(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(path)
    store.boot("boot-1")
    store.commit(rows.run(1, "movie-1"))
    store.close(clean=False)
    os.unlink(path + "-shm")
    with Reader._open_without_shared_memory(path) as reader:
        assert reader.run("movie-1") is not None
        assert reader.run_payloads("movie-1") == (rows.ARGS, None)
        copy = reader._copy
        assert copy is not None
        assert os.path.exists(copy)
    assert not os.path.exists(copy)
    monkeypatch.setattr(shutil, "copyfile", _no_room)
    with pytest.raises(OSError, match="no room"):
        Reader._open_without_shared_memory(path)


def _no_room(*_: str) -> None:
    raise OSError("no room")


def test_only_unfinished_runs_and_only_older_ones(store: Store, path: str) -> None:
    for id in (1, 2, 3):
        store.commit(rows.run(id, f"movie-{id}"))
    store.commit(rows.run_ends(2))
    with Reader.open(path) as reader:
        assert [run.id for run in reader.runs(all=False)] == [3, 1]
        assert [run.id for run in reader.runs(before=3)] == [2, 1]
        assert [run.id for run in reader.runs(limit=1)] == [3]
        assert reader.run("movie-9") is None
        assert reader.run_payloads("movie-2") == (rows.ARGS, rows.RESULT)


def test_a_strange_path_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "what? a #file%20.db"
    store = Store.open(path)
    store.boot("boot-1")
    store.commit(rows.run(1, "movie-1"))
    assert _names(path) == ["movie-1"]
    store.close(clean=True)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreError, match="there is no database"):
        Reader.open(tmp_path / "f.db")
    with pytest.raises(errors.NoSuchFolder):
        Reader.open(tmp_path / "away" / "f.db")
    (tmp_path / "f.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(errors.NotADatabase):
        Reader.open(tmp_path / "f.db")
    (tmp_path / "f.db").write_bytes(b"")
    with pytest.raises(errors.ForeignDatabase, match="empty"):
        Reader.open(tmp_path / "f.db")


def test_writing_is_impossible(store: Store, path: str) -> None:
    with Reader.open(path) as reader:
        assert reader._opened.readonly("main")
    assert store._opened.readonly("main") is False
