"""The promise of the group commit: nobody is told before a sync has returned that began after the COMMIT."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from dq import errors
from dq.crew.committer import INLINE_MAX, Committer
from dq.executor.frames import Flushed, Message
from dq.model.clock import SystemClock
from dq.store.group import Group
from tests.waiting import wait_until


class Disk:
    """A store that notes what is done to it, and whose sync may be held."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.held: threading.Event | None = None
        self.full = 0
        self.broken = False
        self.cost = 0.0

    def commit(self, group: Group) -> None:
        if self.full:
            self.full -= 1
            raise errors.DiskFull("no room.")
        self.log.append(f"commit {len(group.closed_claims)}")

    def sync(self) -> float:
        self.log.append("sync begins")
        if self.held is not None:
            self.held.wait(20)
        if self.broken:
            raise errors.StoreError("the disk failed")
        self.log.append("sync ends")
        return self.cost


class Line:
    """A peer that notes what it is sent."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._log = disk.log
        self._name = name

    def send(self, message: Message) -> None:
        self._log.append(f"{self._name} {message}")

    def write(self, frame: bytes) -> None:
        self._log.append(f"{self._name} {frame!r}")


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def committer(disk: Disk) -> Committer:
    said: list[str] = []
    return Committer(disk, said.append, SystemClock())  # type: ignore[arg-type]


def told(disk: Disk) -> Any:
    return Line(disk, "told")


def test_write_then_claims_then_sync_then_results(committer: Committer, disk: Disk) -> None:
    committer.dirty = committer.eager = True
    committer.after_sync.append((told(disk), Flushed(1)))
    committer.after_commit.append((Line(disk, "claim"), b"x"))  # type: ignore[arg-type]
    committer.commit()
    assert disk.log == ["commit 0", "claim b'x'", "sync begins", "sync ends", "told Flushed(ticket=1)"]


def test_a_mere_acknowledgement_waits_for_a_result_to_share_its_sync(committer: Committer, disk: Disk) -> None:
    committer.dirty = True
    committer.after_sync.append((told(disk), Flushed(1)))
    committer.commit()
    assert disk.log == ["commit 0"]
    assert 0 <= (committer.timeout() or 0) <= 0.002
    committer.dirty = committer.eager = True
    committer.commit()
    assert disk.log == ["commit 0", "commit 0", "sync begins", "sync ends", "told Flushed(ticket=1)"]
    assert committer.timeout() is None


def test_what_is_on_disk_already_is_told_without_a_sync(committer: Committer, disk: Disk) -> None:
    committer.eager = True
    committer.after_sync.append((told(disk), Flushed(1)))
    committer.commit()
    assert disk.log == ["told Flushed(ticket=1)"]


def test_what_is_committed_while_a_sync_runs_waits_for_the_next_one(committer: Committer, disk: Disk) -> None:
    """The thread's sync began before the second COMMIT, so it says nothing about it."""
    slow(committer, disk)
    disk.held = threading.Event()
    committer.dirty = committer.eager = True
    committer.after_sync.append((told(disk), Flushed(1)))
    committer.commit()
    wait_until(lambda: disk.log[-1:] == ["sync begins"])
    committer.dirty = committer.eager = True
    committer.after_sync.append((told(disk), Flushed(2)))
    committer.commit()
    assert disk.log[-1] == "commit 0"
    disk.held.set()
    wait_until(lambda: disk.log[-1] == "sync ends")
    committer.synced()
    assert disk.log[-1] == "told Flushed(ticket=1)"
    assert "told Flushed(ticket=2)" not in disk.log
    committer.settle()
    assert disk.log[-3:] == ["sync begins", "sync ends", "told Flushed(ticket=2)"]


def test_the_wake_of_an_earlier_sync_says_nothing_about_the_one_that_runs(committer: Committer, disk: Disk) -> None:
    """Whoever waits for a sync does so without its wake, which then comes while the next one runs."""
    slow(committer, disk)
    committer.dirty = committer.eager = True
    committer.commit()
    committer.settle()
    os.eventfd_write(committer.wake_fd, 1)
    disk.log.clear()
    disk.held = threading.Event()
    committer.dirty = committer.eager = True
    committer.after_sync.append((told(disk), Flushed(1)))
    committer.commit()
    committer.synced()
    assert disk.log[:1] == ["commit 0"]
    assert not any(line.startswith("told") for line in disk.log)
    disk.held.set()
    wait_until(lambda: disk.log[-1] == "sync ends")

    def heard() -> bool:
        committer.synced()
        return disk.log[-1] == "told Flushed(ticket=1)"

    wait_until(heard)


def slow(committer: Committer, disk: Disk) -> None:
    """Makes the committer believe that syncs are slow, and that there is something to overlap them with."""
    disk.cost = 100 * INLINE_MAX
    committer.overlaps = lambda: True
    committer.dirty = committer.eager = True
    committer.commit()
    assert committer.cost > INLINE_MAX
    disk.log.clear()


def test_a_sync_that_fails_in_the_thread_is_raised_in_the_loop(committer: Committer, disk: Disk) -> None:
    slow(committer, disk)
    disk.broken = True
    committer.dirty = committer.eager = True
    committer.after_sync.append((told(disk), Flushed(1)))
    committer.commit()
    with pytest.raises(errors.StoreError, match="the disk failed"):
        committer.settle()
    assert "told Flushed(ticket=1)" not in disk.log


def test_a_full_disk_is_waited_for(disk: Disk) -> None:
    said: list[str] = []
    committer = Committer(disk, said.append, SystemClock())  # type: ignore[arg-type]
    disk.full = 3
    committer.dirty = True
    committer.commit()
    assert disk.log == ["commit 0"]
    assert "tries again" in said[0]
    assert "goes on" in said[1]
    assert len(said) == 2


def test_claims_that_are_over_are_deleted_with_the_next_ones(committer: Committer, disk: Disk) -> None:
    committer.dirty = True
    committer.group.closed_claims.append((1,))
    committer.commit()
    committer.dirty = True
    committer.group.claims.append((2, 0, 1, "[[1, 1]]", 0))
    committer.commit()
    assert commits(disk) == ["commit 0", "commit 1"]
    committer.group.closed_claims.append((2,))
    committer.dirty = True
    committer.commit()
    committer.tidy()
    committer.commit()
    assert commits(disk) == ["commit 0", "commit 1", "commit 0", "commit 1"]


def commits(disk: Disk) -> list[str]:
    """Without the syncs, which come when their time has come."""
    return [line for line in disk.log if line.startswith("commit")]
