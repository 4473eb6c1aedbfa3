"""A link that somebody has put where dq keeps something is refused, and what it points to stays as it is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

import dq
from dq.crew import ownership
from dq.executor.codec import Codec
from dq.executor.slots import open_slots
from dq.store import faults, place
from dq.store.reader import Reader
from tests.security import places

_SECRET = "what the link points to"
_BESIDE = ["-wal", "-shm", "-journal", ".lock", ".crew", ".slots", ".stacks", ".sock"]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Somebody's file, in a folder of its own."""
    folder = tmp_path / "home"
    folder.mkdir()
    file = folder / "diary"
    file.write_text(_SECRET)
    return file


def _untouched(victim: Path) -> None:
    assert victim.read_text() == _SECRET
    assert [path.name for path in victim.parent.iterdir()] == ["diary"]


def _look(db: Path) -> None:
    """What a supervisor does before it makes or opens anything."""
    place.check_file(str(db))
    place.check_beside(str(db))


@pytest.mark.parametrize("suffix", ["", *_BESIDE], ids=["db", *[suffix[1:] for suffix in _BESIDE]])
def test_a_symbolic_link_is_refused(tmp_path: Path, victim: Path, suffix: str) -> None:
    db = tmp_path / "F.db"
    os.symlink(victim, f"{db}{suffix}")
    with pytest.raises(dq.UnsafePlace, match="is a symbolic link") as error:
        _look(db)
    assert f"{db}{suffix}" in str(error.value)
    with pytest.raises(dq.UnsafePlace if suffix in {"", "-wal", "-shm", "-journal"} else dq.StoreError):
        Reader.open(db)
    assert os.path.islink(f"{db}{suffix}"), "it is left for its owner to look at"
    _untouched(victim)


@pytest.mark.parametrize("suffix", ["-wal", ".lock", ".sock"])
def test_a_supervisor_looks_first(tmp_path: Path, victim: Path, suffix: str) -> None:
    db = tmp_path / "F.db"
    os.symlink(victim, f"{db}{suffix}")
    with pytest.raises(dq.UnsafePlace, match="is a symbolic link"):
        dq.Engine(db, workers=0)
    assert os.path.islink(f"{db}{suffix}")
    assert not db.exists()
    _untouched(victim)


@pytest.mark.parametrize("suffix", [".lock", ".crew", ".slots", "-wal"])
def test_a_second_name_of_another_file_is_refused(tmp_path: Path, victim: Path, suffix: str) -> None:
    os.link(victim, tmp_path / f"F.db{suffix}")
    with pytest.raises(dq.UnsafePlace, match=r"2 names \(hard links\)"):
        _look(tmp_path / "F.db")
    _untouched(victim)


def test_a_link_that_appears_after_the_look_is_not_followed_either(tmp_path: Path, victim: Path) -> None:
    """Locks and slots are opened in a way that the kernel itself refuses links."""
    db = str(tmp_path / "F.db")
    for suffix in (".lock", ".crew", ".slots"):
        os.symlink(victim, db + suffix)
    for open_it in (
        lambda: ownership.Ownership(db).take(1),
        lambda: ownership.share_crew(db),
        lambda: open_slots(f"{db}.slots", create=True),
    ):
        with pytest.raises(OSError, match="symbolic links") as error:
            open_it()
        assert isinstance(faults.explain_os(error.value, str(error.value.filename)), dq.UnsafePlace)
    _untouched(victim)


@pytest.mark.parametrize("kind", ["folder", "socket"])
def test_what_is_no_file_of_dq_is_not_replaced(tmp_path: Path, kind: str) -> None:
    db = tmp_path / "F.db"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        if kind == "folder":
            Path(f"{db}.sock").mkdir()
        else:
            sock.bind(f"{db}.slots")
        with pytest.raises(dq.UnsafePlace, match="is not what dq puts there"):
            _look(db)


def test_a_link_for_the_folder_of_side_files(tmp_path: Path, victim: Path) -> None:
    """At the start, and one that is put there later, in either depth."""
    db = tmp_path / "F.db"
    os.symlink(victim.parent, f"{db}.blobs")
    with pytest.raises(dq.UnsafePlace, match="is a symbolic link"):
        _look(db)
    codec = Codec(f"{db}.blobs")
    with pytest.raises(dq.UnsafePlace, match="is a symbolic link"):
        codec.dumps(bytes(400_000), "a1")
    os.unlink(f"{db}.blobs")
    Path(f"{db}.blobs").mkdir()
    for number in range(256):
        os.symlink(victim.parent, f"{db}.blobs/{number:02x}")
    with pytest.raises(dq.UnsafePlace, match="is a symbolic link"):
        codec.dumps(bytes(400_000), "a1")
    _untouched(victim)


def test_a_link_for_a_side_file_is_not_read(tmp_path: Path, victim: Path) -> None:
    codec = Codec(f"{tmp_path}/F.db.blobs")
    payload = codec.dumps(bytes(400_000), "a1")
    (file,) = (path for path in (tmp_path / "F.db.blobs").rglob("*") if path.is_file())
    file.rename(victim.parent / "moved")
    os.symlink(victim.parent / "moved", file)
    with pytest.raises(dq.DamagedPayload, match="can't be opened"):
        codec.loads(payload)


def test_links_around_a_backup(tmp_path: Path, victim: Path) -> None:
    """The copy itself, its side files, and the folder in which it is made and which is emptied at the end."""
    with dq.Engine(tmp_path / "F.db", workers=0) as engine:
        engine.flush()
        for suffix in (".blobs", ".part"):
            os.symlink(victim.parent if suffix else victim, tmp_path / f"copy.db{suffix}")
            with pytest.raises(dq.StoreError, match=r"symbolic link|is there already"):
                engine.backup(tmp_path / "copy.db")
            _untouched(victim)
            os.unlink(tmp_path / f"copy.db{suffix}")
        engine.backup(tmp_path / "copy.db")


def test_a_step_whose_value_would_follow_a_link_fails_and_says_why(tmp_path: Path, victim: Path) -> None:
    with dq.Engine(tmp_path / "F.db", workers=1) as engine:
        os.symlink(victim.parent, tmp_path / "F.db.blobs")
        with pytest.raises(dq.UnsafePlace, match="is a symbolic link"):
            engine.submit(bytes, 400_000).result(30)
        assert engine.start(places.published).result(30) == 1
        os.unlink(tmp_path / "F.db.blobs")
    _untouched(victim)
