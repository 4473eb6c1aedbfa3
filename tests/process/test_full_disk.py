"""A disk that is full while work is under way: everybody waits for room, and then goes on where it was."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
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

    def fill(self) -> None:
        """To the last page."""
        with open(self._ballast, "ab", buffering=0) as file:
            try:
                while file.write(bytes(1 << 12)):
                    pass
            except OSError:
                return

    def make_room(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with tmpfs(tmp_path / "disk", "size=60m") as folder:
        yield Disk(folder)


def warm(engine: dq.Engine) -> None:
    """A host and a worker are there."""
    assert engine.start(misfits.doubled, 1).result(30) == 2


def test_a_large_result_waits_in_its_worker(disk: Disk, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The step is not failed for it, nor run again: what it has computed is kept until it can be written."""
    said: list[str] = []
    with dq.Engine(disk.db, workers=1) as engine:
        warm(engine)
        future = engine.submit(flows.heavy, str(tmp_path), "heavy", LARGE)
        wait_until(lambda: flows.begins(tmp_path, "heavy"))
        disk.fill()
        (tmp_path / "open-heavy").touch()
        wait_until(lambda: said.append(capfd.readouterr().err) or "waits until there is room" in "".join(said))
        assert f"no room for a value of {LARGE}" in "".join(said)[:2000].replace(str(LARGE + 12), str(LARGE))
        assert f"df -h {disk.folder}" in "".join(said)
        assert not future.done()
        disk.make_room()
        assert future.result(30) == bytes(LARGE)
    assert flows.begins(tmp_path, "heavy") == 1
    assert rows(disk.db, "SELECT count(*) FROM dq_attempt") == [(0,)]


def test_a_large_argument_waits_in_its_host(disk: Disk, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A workflow is neither failed nor blocked for it."""
    said: list[str] = []
    with dq.Engine(disk.db, workers=1) as engine:
        warm(engine)
        run = engine.start(flows.handing_on, str(tmp_path), LARGE, id="r")
        wait_until(lambda: flows.begins(tmp_path, "workflow"))
        disk.fill()
        (tmp_path / "open-workflow").touch()
        wait_until(lambda: said.append(capfd.readouterr().err) or "waits until there is room" in "".join(said))
        assert run.status == "running"
        disk.make_room()
        assert run.result(30) == LARGE
    assert flows.begins(tmp_path, "workflow") == 1


def test_a_client_is_told_at_once(disk: Disk) -> None:
    """What it could not hand over is still its own, so it need not wait."""
    with dq.Engine(disk.db, workers=1) as engine:
        warm(engine)
        disk.fill()
        with pytest.raises(dq.DiskFull, match=rf"no room for a value .*df -h {disk.folder}"):
            engine.submit(misfits.length, bytes(LARGE))
        with pytest.raises(dq.DiskFull):
            engine.start(misfits.measured, bytes(LARGE), id="r")
        disk.make_room()
        assert engine.submit(misfits.length, bytes(LARGE)).result(30) == LARGE
        assert engine.start(misfits.measured, bytes(LARGE), id="r").result(30) == LARGE
    assert not list(disk.folder.rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_supervisor_that_ends_meanwhile_has_a_successor_when_there_is_room(
    disk: Disk, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """It can be stopped although it can't write; what it held was promised to nobody."""
    caplog.set_level(logging.DEBUG, "dq")
    with dq.Engine(disk.db, workers=2) as engine:
        warm(engine)
        [supervisor] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
        disk.fill()
        futures = [engine.submit(misfits.length, bytes(200_000)) for _ in range(30)]
        wait_until(lambda: "tries again until there is room" in caplog.text)
        os.kill(supervisor, number)
        wait_until(lambda: "tries again to start its supervisor until there is room" in caplog.text)
        assert not all(future.done() for future in futures)
        disk.make_room()
        assert [future.result(60) for future in futures] == [200_000] * 30
        [successor] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
        assert successor != supervisor
    if number == signal.SIGTERM:
        assert "The supervisor stops; its successor goes on from what is on disk." in capfd.readouterr().err
    assert rows(disk.db, "SELECT count(*) FROM dq_result WHERE state = 'completed'") == [(31,)]


def test_a_full_disk_at_the_start(tmp_path: Path) -> None:
    """Whatever file finds no room: the database, its lock, its slots."""
    for size in ("16k", "64k", "2m"):
        with tmpfs(tmp_path / size, f"size={size}") as folder:
            with pytest.raises(dq.DiskFull, match="no room left for .*df -h"):
                dq.Engine(folder / "f.db")
            with pytest.raises(dq.DiskFull):
                dq.Executor(folder / "f.db")
