"""Opening: what is made, and the clear error for each thing that may not be opened."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

import apsw
import pytest

from dq import errors
from dq.store import connection, migrate, place
from dq.store.store import Boot, Store
from tests.store import rows
from tests.store.mounts import remount, tmpfs


def _foreign(path: Path) -> Path:
    other = apsw.Connection(str(path))
    other.execute("create table book (title)")
    other.close()
    return path


def test_a_new_file_is_private_and_complete(path: str) -> None:
    store = Store.open(path)
    assert {stat.S_IMODE(os.stat(path + end).st_mode) for end in ("", "-wal", "-shm")} == {0o600}
    assert store.boot("boot-1") == Boot(1, unclean=False, machine_changed=False)
    store.close(clean=True)
    assert not os.path.exists(path + "-wal")


def test_the_file_says_what_it_is(path: str) -> None:
    Store.open(path).close(clean=True)
    with open(path, "rb") as file:
        head = file.read(100)
    assert head.startswith(b"SQLite format 3\0")
    assert int.from_bytes(head[68:72], "big") == migrate.APPLICATION_ID
    assert int.from_bytes(head[60:64], "big") == migrate.VERSION
    assert int.from_bytes(head[16:18], "big") == migrate.PAGE_SIZE


def test_boots_are_counted_and_tell_what_happened(path: str) -> None:
    told: list[Boot] = []
    for boot_id, clean in (("boot-1", True), ("boot-1", False), ("boot-1", False), ("boot-2", True)):
        store = Store.open(path)
        told.append(store.boot(boot_id))
        store.close(clean=clean)
    assert told == [Boot(1, False, False), Boot(2, False, False), Boot(3, True, False), Boot(4, True, True)]


def test_guards_are_on(store: Store) -> None:
    opened = store._opened
    assert opened.pragma("journal_mode") == "wal"
    assert opened.pragma("synchronous") == 1
    assert opened.pragma("cell_size_check") == 1
    assert opened.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1) == 1
    assert opened.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, -1) == 0


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(errors.NoSuchFolder, match=re.escape(f"mkdir -p {tmp_path / 'away'}")):
        Store.open(tmp_path / "away" / "f.db")
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.NoSuchFolder):
        Store.open(tmp_path / "file" / "f.db")


def test_no_such_file(path: str) -> None:
    with pytest.raises(errors.StoreError, match="there is no database"):
        Store.open(path, create=False)
    assert not os.path.exists(path)


@pytest.mark.parametrize("text", [b"x", b"not a database\n" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_not_a_database(path: str, text: bytes) -> None:
    Path(path).write_bytes(text)
    with pytest.raises(errors.NotADatabase, match="leaves it as it is"):
        Store.open(path)
    assert Path(path).read_bytes() == text


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(errors.NotADatabase, match="folder"):
        Store.open(tmp_path)


def test_an_empty_file_becomes_one(path: str) -> None:
    Path(path).touch(0o600)
    store = Store.open(path)
    assert store.boot("boot-1").epoch == 1
    store.close(clean=True)


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    other = _foreign(tmp_path / "books.db")
    before = other.read_bytes()
    with pytest.raises(errors.ForeignDatabase, match="another application"):
        Store.open(other)
    assert other.read_bytes() == before
    assert os.listdir(tmp_path) == ["books.db"]


def test_a_newer_schema_is_refused(path: str) -> None:
    Store.open(path).close(clean=True)
    later = apsw.Connection(path)
    later.pragma("user_version", migrate.VERSION + 1)
    later.close()
    with pytest.raises(errors.NewerSchema, match="Upgrade with"):
        Store.open(path)


@pytest.mark.parametrize("clean", [True, False])
def test_a_damaged_page_is_found(path: str, clean: bool) -> None:
    store = Store.open(path)
    store.boot("boot-1")
    store.commit(rows.functions())
    store.commit(rows.batch(1, 2000))
    store._opened.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    store.close(clean=clean)
    pages = os.path.getsize(path) // migrate.PAGE_SIZE
    with open(path, "r+b") as file:
        for page in range(pages // 2, pages):
            file.seek(page * migrate.PAGE_SIZE)
            file.write(b"\xa5" * 64)
    with pytest.raises(errors.CorruptDatabase, match=r"\.recover"):
        Store.open(path)


def test_looking_for_damage_is_bounded(store: Store, path: str) -> None:
    store.commit(rows.batch(1, 20_000))
    connection.check_pages(store._opened, path, 0.0)
    assert store.next_id() == 20_001, "an interrupted look harms nothing"


def test_a_hard_link_is_unsafe(path: str) -> None:
    Store.open(path).close(clean=True)
    os.link(path, path + ".again")
    with pytest.raises(errors.UnsafePlace, match="2 names"):
        Store.open(path)


def test_a_symbolic_link_is_unsafe(tmp_path: Path) -> None:
    Store.open(tmp_path / "f.db").close(clean=True)
    (tmp_path / "link.db").symlink_to(tmp_path / "f.db")
    with pytest.raises(errors.UnsafePlace, match="symbolic link"):
        Store.open(tmp_path / "link.db")
    (tmp_path / "dangling.db").symlink_to(tmp_path / "nothing")
    with pytest.raises(errors.UnsafePlace):
        Store.open(tmp_path / "dangling.db")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(("kind", "label"), list(place.UNSAFE_FILE_SYSTEMS.items()))
def test_a_network_file_system_is_unsafe(path: str, monkeypatch: pytest.MonkeyPatch, kind: int, label: str) -> None:
    monkeypatch.setattr(place, "file_system", lambda _: kind)
    with pytest.raises(errors.UnsafePlace, match=label):
        Store.open(path)
    assert not os.path.exists(path)


def test_the_file_system_is_known(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", "size=1m") as folder:
        assert place.file_system(str(folder)) == 0x01021994
    assert place.file_system("/proc") == 0x9FA0


def test_an_old_sqlite_is_refused() -> None:
    with pytest.raises(errors.StoreError, match="pip install -U apsw"):
        connection.require_sqlite("3.51.2")


def test_a_read_only_file_system(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", "size=4m") as folder:
        Store.open(folder / "f.db").close(clean=True)
        remount(folder, "ro")
        with pytest.raises(errors.ReadOnlyFile, match="can't be written"):
            Store.open(folder / "f.db")
        with pytest.raises(errors.ReadOnlyFile):
            Store.open(folder / "new.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_permissions(tmp_path: Path) -> None:
    Store.open(tmp_path / "f.db").close(clean=True)
    (tmp_path / "f.db").chmod(0o400)
    with pytest.raises(errors.ReadOnlyFile):
        Store.open(tmp_path / "f.db")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(errors.ReadOnlyFile):
            Store.open(tmp_path / "new.db")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("size", ["16k", "48k", "100k"])
def test_no_room_for_a_new_file(tmp_path: Path, size: str) -> None:
    with tmpfs(tmp_path / "mount", f"size={size}") as folder, pytest.raises(errors.DiskFull, match="df -h"):
        Store.open(folder / "f.db")


def test_a_broken_start_is_finished_by_the_next(path: str) -> None:
    """A kill between turning the log on and the schema leaves an empty database."""
    half = apsw.Connection(path)
    half.pragma("page_size", 8192)
    half.pragma("journal_mode", "wal")
    half.close()
    store = Store.open(path)
    assert store.boot("boot-1") == Boot(1, unclean=False, machine_changed=False)
    store.close(clean=True)


def test_a_relative_path_survives_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open("f.db")
    monkeypatch.chdir("/")
    store.boot("boot-1")
    store.close(clean=True)
    assert (tmp_path / "f.db").exists()
    shutil.rmtree(tmp_path)
