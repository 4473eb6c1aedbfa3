"""Slots: evidence that outlives its writer."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dq.executor.slots import (
    BEGUN,
    ENTRIES,
    HOST,
    SLOT_SIZE,
    SLOTS,
    UNSENT,
    WORKER,
    Entry,
    SlotReader,
    SlotWriter,
    open_slots,
)

BIG = (1 << 63) - 1


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "F.db.slots")


def test_a_slot_tells_its_owner(path: str) -> None:
    reader = SlotReader(open_slots(path, create=True))
    writer = SlotWriter(open_slots(path), 5)
    assert reader.identity(5).pid == 0
    writer.own(BIG, 4321, BIG - 1, b"n" * 16, HOST)
    assert reader.identity(5) == (BIG, 4321, BIG - 1, b"n" * 16, HOST, 0, 0)
    writer.beat()
    writer.beat()
    assert reader.beat(5) == reader.identity(5).beat == 2
    assert reader.identity(4).pid == reader.identity(6).pid == 0


def test_entries_tell_what_is_begun_and_what_is_unsent(path: str) -> None:
    reader = SlotReader(open_slots(path, create=True))
    writer = SlotWriter(open_slots(path), 0)
    writer.own(1, 2, 3, b"n" * 16, WORKER)
    writer.begin(0, 11, BIG)
    writer.begin(1, 12, BIG)
    writer.finish(0)
    assert reader.entries(0) == [Entry(11, BIG, UNSENT), Entry(12, BIG, BEGUN)]
    assert reader.identity(0).finished == 1
    writer.free(0)
    assert reader.entries(0) == [Entry(12, BIG, BEGUN)]
    reader.clear(0)
    assert reader.entries(0) == []
    assert reader.identity(0).pid == 0


def test_the_last_entry_of_the_last_slot_fits(path: str) -> None:
    reader = SlotReader(open_slots(path, create=True))
    writer = SlotWriter(open_slots(path), SLOTS - 1)
    for index in range(ENTRIES):
        writer.begin(index, index + 1, 7)
    assert reader.entries(SLOTS - 1) == [Entry(index + 1, 7, BEGUN) for index in range(ENTRIES)]
    writer.free(0, ENTRIES)
    assert reader.entries(SLOTS - 1) == []
    assert os.path.getsize(path) == SLOTS * SLOT_SIZE


def test_a_new_owner_finds_nothing_of_the_old_one(path: str) -> None:
    memory = open_slots(path, create=True)
    writer = SlotWriter(memory, 3)
    writer.own(1, 2, 3, b"a" * 16, WORKER)
    writer.begin(ENTRIES - 1, 1, 1)
    writer.finish(ENTRIES - 1)
    SlotWriter(open_slots(path), 3).own(1, 4, 5, b"b" * 16, WORKER)
    assert SlotReader(memory).entries(3) == []
    assert SlotReader(memory).identity(3).finished == 0


def test_an_entry_half_freed_is_free(path: str) -> None:
    memory = open_slots(path, create=True)
    writer = SlotWriter(memory, 0)
    writer.begin(0, 5, 6)
    at = bytes(memory[:SLOT_SIZE]).index((5).to_bytes(8, "little"))
    memory[at : at + 8] = bytes(8)
    assert SlotReader(memory).entries(0) == []


def test_the_file_is_private_and_what_it_holds_stays(path: str) -> None:
    SlotWriter(open_slots(path, create=True), 0).begin(0, 1, 2)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert SlotReader(open_slots(path, create=True)).entries(0) == [Entry(1, 2, BEGUN)]


def test_no_link_is_followed(path: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(OSError, match="symbolic"):
        open_slots(path, create=True)
    with pytest.raises(FileNotFoundError):
        open_slots(str(tmp_path / "none"))


def test_a_body_with_a_time_limit_tells_when_it_began(path: str) -> None:
    reader = SlotReader(open_slots(path, create=True))
    writer = SlotWriter(open_slots(path), 3)
    writer.own(1, 2, 3, b"n" * 16, WORKER)
    assert reader.timed(3) == (0, 0)
    writer.time(11, BIG)
    assert reader.timed(3) == (11, BIG)
    writer.begin(0, 11, 7)
    writer.beat()
    assert reader.timed(3) == (11, BIG)
    writer.time(0, 0)
    assert reader.timed(3) == (0, 0)
    assert reader.entries(3) == [Entry(11, 7, BEGUN)]
