"""What the database lies on: its disk, its file system, the SQLite that reads it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator

from dq.cli.doctor.finding import ERROR, NOTE, WARNING, Finding
from dq.cli.sizes import size
from dq.store import connection, faults, place
from dq.store.store import ROOM_MIN

_MEMORY = {0x01021994: "tmpfs", 0x858458F6: "ramfs"}
LIES, SLOW = 0.000_010, 0.020  # seconds for a sync: quicker than any disk; slower than is good
_TIMES = 9  # syncs that are measured
LITTLE = 16 << 20  # bytes


def check(db: str) -> Iterator[Finding]:
    folder = os.path.dirname(db) or "."
    yield from _file_system(folder)
    yield from _room(folder)
    yield from _durability(folder)
    yield from _sqlite()


def _file_system(folder: str) -> Iterator[Finding]:
    kind = place.file_system(folder)
    if kind in place.UNSAFE_FILE_SYSTEMS:
        yield Finding(
            ERROR, "file system", f"{folder} lies on {place.UNSAFE_FILE_SYSTEMS[kind]}",
            "locks there don't hold between processes, so two writers could damage the file", "move it to a local disk",
        )  # fmt: skip
    elif kind in _MEMORY:
        yield Finding(
            NOTE, "file system", f"{folder} lies in memory ({_MEMORY[kind]})",
            "what is there survives every kill, and no restart of the machine", "move it to a disk unless that is meant",
        )  # fmt: skip


def _room(folder: str) -> Iterator[Finding]:
    free = faults.room(folder)
    if free < ROOM_MIN:
        yield Finding(
            ERROR if free < LITTLE else WARNING, "room", f"{size(free)} are free in {folder}",
            "on a full disk dq waits with everything until there is room again",
            "make room; `dq gc --older-than 30d --compact` may find some in the database",
        )  # fmt: skip


def _durability(folder: str) -> Iterator[Finding]:
    took = sync_time(folder)
    if took is None or place.file_system(folder) in _MEMORY:
        return
    if took < LIES:
        yield Finding(
            WARNING, "durability", f"a sync takes {took * 1e6:.1f} µs, which no disk can do",
            "the disk, the virtual machine or the container says that data is safe while it is not; a power cut may lose what "
            "was acknowledged, and damage the file",
            "look for a cache that ignores flushes (eatmydata, `cache=unsafe`, nobarrier), or live with it in tests",
        )  # fmt: skip
    elif took > SLOW:
        yield Finding(
            NOTE, "durability", f"a sync takes {took * 1e3:.0f} ms", "everybody who waits for an acknowledgement waits that long",
            "use a disk with a faster sync, such as an SSD with power loss protection",
        )  # fmt: skip


def sync_time(folder: str) -> float | None:
    """Seconds that one fdatasync of 4 KiB takes there, the median of some; None where that can't be measured."""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)  # it has no name, so nothing is left
    except OSError:
        return None
    try:
        block, times = os.urandom(4096), list[float]()
        for _ in range(_TIMES):
            os.pwrite(fd, block, 0)
            began = time.perf_counter()
            os.fdatasync(fd)
            times.append(time.perf_counter() - began)
    except OSError:
        return None
    finally:
        os.close(fd)
    return statistics.median(times)


def _sqlite() -> Iterator[Finding]:
    version, needed = connection.sqlite_version(), ".".join(map(str, connection.SQLITE_MIN))
    if tuple(int(part) for part in version.split(".")) < connection.SQLITE_MIN:
        yield Finding(
            ERROR, "SQLite", f"SQLite {version} is older than {needed}",
            "it can lose commits when a checkpoint meets a log reset", "pip install -U apsw",
        )  # fmt: skip
