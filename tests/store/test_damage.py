"""Damage that SQLite itself does not mind: dq says what is wrong with the file, and changes nothing."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dq.cli.doctor.command import examine
from dq.errors import CorruptDatabase
from dq.store.migrate import PAGE_SIZE
from dq.store.reader import Reader
from dq.store.store import Store
from tests.store import rows


@pytest.fixture
def whole(path: str) -> str:
    """A file with a run, closed."""
    store = Store.open(path)
    store.boot("boot-1")
    store.commit(rows.functions())
    store.commit(rows.run(7, "movie-7"))
    store.close(clean=True)
    return path


def alter(path: str, statement: str) -> None:
    """Changes what the schema forbids, as damage does."""
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA ignore_check_constraints = ON")
        file.execute(statement)
        file.commit()


def is_refused(path: str, what: str, look: Callable[[Reader], object]) -> None:
    """Both who reads and who writes are told."""
    with pytest.raises(CorruptDatabase, match=what), Reader.open(path) as reader:
        look(reader)
    with pytest.raises(CorruptDatabase, match=what):
        Store.open(path)


def test_a_version_that_never_was(whole: str) -> None:
    data = bytearray(Path(whole).read_bytes())
    data[60:64] = struct.pack(">I", 0)
    Path(whole).write_bytes(data)
    is_refused(whole, "none ever was", Reader.runs)
    assert Path(whole).read_bytes() == data


def test_the_row_of_the_engine_is_gone(whole: str) -> None:
    alter(whole, "DELETE FROM dq_engine")
    is_refused(whole, "the row of dq_engine is gone", Reader.engine)


def test_text_that_is_no_text(whole: str) -> None:
    alter(whole, "UPDATE dq_run SET name = CAST(x'6dff6d' AS TEXT)")
    with pytest.raises(CorruptDatabase, match="no UTF-8"), Reader.open(whole) as reader:
        reader.runs()
    store = Store.open(whole)
    with pytest.raises(CorruptDatabase, match="no UTF-8"):
        store.unfinished_runs()
    store.close(clean=False)


@pytest.fixture
def senseless(whole: str) -> str:
    """One of its pages, which few read, is blank."""
    with closing(sqlite3.connect(whole)) as file:
        [(page,)] = file.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'dq_letter'")
    data = bytearray(Path(whole).read_bytes())
    data[(page - 1) * PAGE_SIZE : page * PAGE_SIZE] = bytes(PAGE_SIZE)
    Path(whole).write_bytes(data)
    return whole


def test_a_state_that_there_is_not(whole: str) -> None:
    alter(whole, "UPDATE dq_run SET state = 'asleep'")
    with pytest.raises(CorruptDatabase, match="dq_run"):
        Store.open(whole)


def test_an_error_over_a_damaged_file_is_the_damage(senseless: str) -> None:
    with pytest.raises(CorruptDatabase, match=r"dq_letter|page"), Reader.open(senseless):
        raise TypeError("what code does that gets what it never wrote")


def test_an_error_over_a_whole_file_is_nobody_elses(whole: str) -> None:
    with pytest.raises(TypeError, match="its own"), Reader.open(whole):
        raise TypeError("its own")
    store = Store.open(whole)
    store.suspect(TypeError("its own"))
    store.close(clean=False)


def test_the_doctor_believes_no_row_of_a_damaged_file(senseless: str) -> None:
    found = [finding.check for finding in examine(senseless)]
    assert {"integrity", "CorruptDatabase"} & {*found}
    assert not {"blocked", "executors", "scripts", "owner"} & {*found}
