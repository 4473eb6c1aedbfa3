"""A copy is whole or not there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from dq.crew import backup, janitor
from dq.errors import CorruptDatabase, DamagedPayload, DiskFull, StoreError
from dq.executor import blobs
from dq.model.payload import FILE, seal
from dq.store import copying
from dq.store.group import Group
from dq.store.reader import Reader
from dq.store.store import Store
from tests.store import rows


class Source:
    """A database with a supervisor's store on it, and two steps whose arguments are side files."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "f.db")
        self.copy = str(folder / "copies" / "c.db")
        (folder / "copies").mkdir()
        self.store = Store.open(self.path)
        self.store.boot("boot-1")
        self.store.commit(rows.functions())
        self.files = [self.file("a1"), self.file("a2")]
        steps = [(id, 1, seal(FILE, body), rows.NOW) for id, body in enumerate(self.files, 1)]
        self.store.commit(Group(lease_to=3, batches=[(1, 2)], steps=steps))

    def file(self, name: str) -> bytes:
        return blobs.write(f"{self.path}.blobs", name, name.encode() * 1000, [])

    def path_of(self, number: int) -> Path:
        return Path(blobs.path_of(f"{self.path}.blobs", blobs.reference(self.files[number]).name))

    def left(self) -> list[str]:
        return sorted(os.listdir(Path(self.copy).parent))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def test_a_copy_holds_what_was_committed_and_the_files_it_names(source: Source) -> None:
    source.file("a9")  # nobody refers to it
    told = backup.make(source.path, source.copy)
    assert (told["files"], told["linked"]) == (2, 2)
    assert source.left() == ["c.db", "c.db.blobs"]
    with Reader.open(source.copy) as copy:
        assert copy.step_counts() == (2, 0, 0)
        assert copy.findings() == []
    assert len(janitor.listing(f"{source.copy}.blobs")) == 2
    assert stat.S_IMODE(os.stat(source.copy).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(f"{source.copy}.blobs").st_mode) == 0o700
    again = Store.open(source.copy)
    assert again.boot("boot-1").unclean
    assert len(again.open_steps(1, 2)) == 2
    again.close(clean=False)


def test_a_name_is_durable_before_the_next_one_is_given(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may keep the later of two names and not the earlier one: the copy would be there without its side files."""
    told: list[str] = []
    rename, sync = backup._rename, backup._sync

    def give(old: str, new: str) -> None:
        told.append(os.path.basename(new))
        rename(old, new)

    def settle(folder: str) -> None:
        told.append(f"sync {os.path.basename(folder)}")
        sync(folder)

    monkeypatch.setattr(backup, "_rename", give)
    monkeypatch.setattr(backup, "_sync", settle)
    backup.make(source.path, source.copy)
    assert told[-5:] == ["sync c.db.part", "c.db.blobs", "sync copies", "c.db", "sync copies"]


def test_what_can_t_be_linked_is_copied(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    told = backup.make(source.path, source.copy)
    assert (told["files"], told["linked"]) == (2, 0)
    [one, _] = janitor.listing(f"{source.copy}.blobs")
    assert os.stat(one.path).st_nlink == 1
    assert stat.S_IMODE(os.stat(one.path).st_mode) == 0o600


@pytest.mark.parametrize("name", ["c.db", "c.db.blobs"])
def test_nothing_is_overwritten(source: Source, name: str) -> None:
    there = Path(source.copy).parent / name
    there.write_text("mine")
    with pytest.raises(StoreError, match="never overwrites"):
        backup.make(source.path, source.copy)
    assert source.left() == [name]
    assert there.read_text() == "mine"


def test_a_missing_or_changed_side_file_is_told_and_nothing_is_left(source: Source) -> None:
    path = source.path_of(1)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedPayload, match="does not match"):
        backup.make(source.path, source.copy)
    path.unlink()
    with pytest.raises(DamagedPayload, match="is gone"):
        backup.make(source.path, source.copy)
    assert source.left() == []


def test_a_damaged_copy_is_thrown_away(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(reader: Reader, target: str) -> float:
        copying_copy(reader, target)
        with open(target, "r+b") as file:
            file.seek(4096)
            file.write(bytes(4096))
        return 0.0

    copying_copy = copying.copy
    monkeypatch.setattr(copying, "copy", damage)
    with pytest.raises(CorruptDatabase):
        backup.make(source.path, source.copy)
    assert source.left() == []


def test_what_a_killed_one_has_left_is_thrown_away(source: Source) -> None:
    part = Path(f"{source.copy}.part")
    (part / "copy.db.blobs" / "00").mkdir(parents=True)
    (part / "copy.db").write_text("half")
    backup.make(source.path, source.copy)
    assert source.left() == ["c.db", "c.db.blobs"]


def test_one_that_was_killed_between_its_two_names_is_made_anew(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def rename(old: str, new: str) -> None:
        if new == source.copy:
            raise Killed
        os.rename(old, new)

    monkeypatch.setattr(backup, "_rename", rename)
    monkeypatch.setattr(backup, "_empty", lambda _folder: None)  # whoever is killed puts nothing right
    with pytest.raises(Killed):
        backup.make(source.path, source.copy)
    assert source.left() == ["c.db.blobs", "c.db.part"]
    monkeypatch.undo()
    backup.make(source.path, source.copy)
    assert source.left() == ["c.db", "c.db.blobs"]


def test_two_at_once_do_not_meet(source: Source) -> None:
    with backup._workshop(source.copy), pytest.raises(StoreError, match="just now"):
        backup.make(source.path, source.copy)
    backup.make(source.path, source.copy)


def test_a_full_disk_is_told_and_nothing_is_left(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> float:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copying, "copy", full)
    with pytest.raises(DiskFull):
        backup.make(source.path, source.copy)
    assert source.left() == []


def test_nothing_is_unlinked_meanwhile(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []
    original = copying.copy

    def copy(reader: Reader, target: str) -> float:
        took = original(reader, target)
        task = janitor.Task(f"{source.path}.blobs")
        task._unlink(janitor.listing(f"{source.path}.blobs"))
        found.append(task.held)
        return took

    monkeypatch.setattr(copying, "copy", copy)
    assert backup.make(source.path, source.copy)["files"] == 2
    assert found == [True]


def test_a_commit_in_the_middle_is_in_the_copy_as_a_whole_or_not_at_all(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = copying.copy

    def copy(reader: Reader, target: str) -> float:
        reader.step_counts()
        source.store.commit(rows.batch(10, 500))
        return original(reader, target)

    monkeypatch.setattr(copying, "copy", copy)
    backup.make(source.path, source.copy)
    source.store.commit(rows.batch(600, 700))
    with Reader.open(source.copy) as made:
        assert made.step_counts().steps == 2 + 491
        assert len(made.open_steps()) == 2 + 491
