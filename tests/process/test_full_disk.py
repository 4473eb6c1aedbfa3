"""A disk that is full while work is under way: everybody waits for room, and then goes on where it was."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dq
from tests.process import flows, misfits
from tests.process.crews import rows
from tests.store.mounts import tmpfs
from tests.waiting import wait_until

LARGE = 3_000_064  # bytes; it gets a side file


class Disk:
    """A small file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = folder / "f.db"
        self._ballast = folder / "ballast"

    @contextmanager
    def full(self) -> Iterator[None]:
        """To the last page, until the block ends."""
        try:
            with open(self._ballast, "ab", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(1 << 12)):
                    pass
            yield
        finally:
            self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with tmpfs(tmp_path / "disk", "size=60m") as folder:
        yield Disk(folder)


def warm(engine: dq.Engine) -> None:
    """A host and a worker are there."""
    assert engine.start(misfits.doubled, 1).result(30) == 2


class Ear:
    """What this process and those that it has started have said so far."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.text = ""

    def heard(self, words: str) -> bool:
        self.text += self._capfd.readouterr().err
        return words in self.text


def test_a_large_result_waits_in_its_worker(disk: Disk, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The step is not failed for it, nor run again: what it has computed is kept until it can be written."""
    ear = Ear(capfd)
    with dq.Engine(disk.db, workers=1) as engine:
        warm(engine)
        future = engine.submit(flows.heavy, str(tmp_path), "heavy", LARGE)
        wait_until(lambda: flows.begins(tmp_path, "heavy"))
        with disk.full():
            (tmp_path / "open-heavy").touch()
            wait_until(lambda: ear.heard("waits until there is room"))
            assert not future.done()
        assert future.result(30) == bytes(LARGE)
    assert f"dq: no room for a value of {LARGE + 9} bytes in {disk.db}.blobs: the disk is full" in ear.text
    assert f"`df -h {disk.folder}`" in ear.text
    assert ear.text.count("no room") == 1, "it is not told again and again"
    assert flows.begins(tmp_path, "heavy") == 1
    assert rows(disk.db, "SELECT count(*) FROM dq_attempt") == [(0,)]


def test_a_large_argument_waits_in_its_host(disk: Disk, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A workflow is neither failed nor blocked for it."""
    ear = Ear(capfd)
    with dq.Engine(disk.db, workers=1) as engine:
        warm(engine)
        run = engine.start(flows.handing_on, str(tmp_path), LARGE, id="r")
        wait_until(lambda: flows.begins(tmp_path, "workflow"))
        with disk.full():
            (tmp_path / "open-workflow").touch()
            wait_until(lambda: ear.heard("waits until there is room"))
        assert run.result(30) == LARGE
    assert flows.begins(tmp_path, "workflow") == 1


def test_a_client_is_told_at_once(disk: Disk) -> None:
    """What it could not hand over is still its own, so it need not wait."""
    with dq.Engine(disk.db, workers=1) as engine:
        warm(engine)
        with disk.full():
            with pytest.raises(dq.DiskFull, match=rf"no room for a value .*df -h {disk.folder}"):
                engine.submit(misfits.length, bytes(LARGE))
            with pytest.raises(dq.DiskFull):
                engine.start(misfits.measured, bytes(LARGE), id="r")
        assert engine.submit(misfits.length, bytes(LARGE)).result(30) == LARGE
        assert engine.start(misfits.measured, bytes(LARGE), id="r").result(30) == LARGE
    assert not list(disk.folder.rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_supervisor_that_ends_meanwhile_has_a_successor_when_there_is_room(
    disk: Disk, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """It can be stopped although it can't write; what it held was promised to nobody."""
    ear = Ear(capfd)
    caplog.set_level(logging.DEBUG, "dq")
    with dq.Engine(disk.db, workers=2) as engine:
        warm(engine)
        [supervisor] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
        with disk.full():
            futures = [engine.submit(misfits.length, bytes(200_000)) for _ in range(30)]
            wait_until(lambda: "tries again until there is room" in caplog.text)
            os.kill(supervisor, number)
            wait_until(lambda: "tries again to start its supervisor until there is room" in caplog.text)
            assert not all(future.done() for future in futures)
        assert [future.result(60) for future in futures] == [200_000] * 30
        [successor] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
        assert successor != supervisor
    assert ear.heard("The supervisor stops; its successor goes on from what is on disk.") == (number == signal.SIGTERM)
    assert rows(disk.db, "SELECT count(*) FROM dq_result WHERE state = 'completed'") == [(31,)]


@pytest.mark.parametrize("size", ["16k", "64k", "2m"])
def test_a_full_disk_at_the_start(tmp_path: Path, size: str) -> None:
    """Whatever file finds no room: the database, its lock, its slots."""
    with tmpfs(tmp_path / "disk", f"size={size}") as folder:
        with pytest.raises(dq.DiskFull, match=r"no room left for .*df -h"):
            dq.Engine(folder / "f.db")
        with pytest.raises(dq.DiskFull):
            dq.Executor(folder / "f.db")
