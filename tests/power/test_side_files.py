"""Side files lie outside of SQLite: what of them a power cut may take is settled by dq's own syncs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dq.executor import blobs


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is synced and renamed, by name, in the order of time."""
    told: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def sync(fd: int) -> None:
        told.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
        fsync(fd)

    def name(old: str, new: str) -> None:
        told.append(("rename", os.path.basename(new)))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", name)
    monkeypatch.setattr("secrets.token_hex", lambda _count: "00")
    return told


def test_a_side_file_is_durable_before_its_row_may_be_written(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    """First what it holds, then its name, which lies in a folder whose own name is durable."""
    folder = tmp_path / "f.db.blobs"
    inner = Path(blobs.path_of(str(folder), "a1-00")).parent.name
    blobs.write(str(folder), "a1", b"data", [])
    above = [("sync", tmp_path.name), ("sync", folder.name)]
    itself = [("sync", "a1-00.tmp"), ("rename", "a1-00"), ("sync", inner)]
    assert calls == above + itself


def test_a_folder_that_another_process_has_made_may_not_be_durable(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    """It was killed before its sync, or is about to do it: its folder would be lost, and the new file with it."""
    folder = tmp_path / "f.db.blobs"
    os.makedirs(os.path.dirname(blobs.path_of(str(folder), "a1-00")))
    blobs.write(str(folder), "a1", b"data", [])
    assert calls[:2] == [("sync", tmp_path.name), ("sync", folder.name)]


def test_a_folder_is_made_durable_once(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    folder = str(tmp_path / "f.db.blobs")
    for _ in range(2):
        calls.clear()
        body = blobs.write(folder, "a1", b"data", [])
        os.unlink(blobs.path_of(folder, blobs.reference(body).name))
    assert len(calls) == 3
