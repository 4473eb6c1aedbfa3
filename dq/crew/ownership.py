"""Who owns a database file: one flock for the supervisor, one shared flock for the members it has forked.

`F.db.lock` is held by the supervisor alone; its children close it. `F.db.crew` is held shared by template, workers and
hosts. A successor takes the first, kills what earlier boots left behind, and takes the second exclusively before it
frees their claims: then nobody is left who could still run one of them. Lock files are never unlinked, since a lock
on an unlinked file excludes nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from dq import errors
from dq.executor.slots import SLOTS, SlotReader

CREW_WAIT = 5.0  # seconds for killed members to be gone
_SCAN_AFTER = 0.5
GIVE_WAY = 5.0  # seconds for a supervisor without workers to make room for one that has some
_IDLE = "idle"


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Ownership:
    """The right to write a database file."""

    def __init__(self, db: str) -> None:
        self._db = db
        self._lock = -1

    def take(self, pid: int, *, idle: bool = False) -> None:
        """Takes the lock. Raises DatabaseInUse, which names the owner's pid.

        `idle` says that this supervisor has no workers: it only takes work down, and gives way to one that does it.
        """
        fd = _open(self._db + ".lock")
        until = time.monotonic() + GIVE_WAY
        while not _locked(fd):
            owner, _, mark = os.pread(fd, 32, 0).decode("ascii", "replace").strip().partition(" ")
            if idle or mark != _IDLE or time.monotonic() > until:
                os.close(fd)
                raise errors.DatabaseInUse(
                    f"{self._db} is in use: the supervisor with pid {owner or 'unknown'} works on it. "
                    "One file has one supervisor; connect to it, or stop it with "
                    f"`kill {owner or 'PID'}` (it drains first).",
                    int(owner) if owner.isdigit() else 0,
                ) from None
            self._ask_to_leave(owner)
            time.sleep(0.01)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{pid} {_IDLE}".encode() if idle else str(pid).encode(), 0)
        self._lock = fd

    def _ask_to_leave(self, owner: str) -> None:
        """Stops an owner that has no workers, if it is certain that it is one: the file may be of the one before."""
        if owner.isdigit() and _holds(int(owner), os.path.realpath(self._db + ".lock")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(owner), signal.SIGTERM)

    def evict(self, slots: SlotReader) -> list[int]:
        """Kills the members of earlier boots and waits until none is left. Returns the pids it killed."""
        fd = _open(self._db + ".crew")
        killed = {pid for pid in survivors(self._db, slots) if _kill(pid)}
        start = time.monotonic()
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return sorted(killed)
                except BlockingIOError:
                    waited = time.monotonic() - start
                if waited > CREW_WAIT:
                    raise errors.DatabaseInUse(
                        f"{self._db}: processes of an earlier supervisor are still alive and could not be killed: "
                        f"{sorted(holders(self._db))}. Stop them, then start again."
                    )
                if waited > _SCAN_AFTER:
                    killed |= {pid for pid in holders(self._db) if _kill(pid)}
                time.sleep(0.002)
        finally:
            os.close(fd)

    def release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def share_crew(db: str) -> int:
    """Marks this process, and what it forks, as members of the crew. Returns the fd that holds the mark."""
    fd = _open(db + ".crew")
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def survivors(db: str, slots: SlotReader) -> Iterator[int]:
    """Pids of slot owners that are alive: same pid, same start time, and the crew file in hand."""
    crew = os.path.realpath(db + ".crew")
    for slot in range(SLOTS):
        identity = slots.identity(slot)
        if identity.pid and started(identity.pid) == identity.started and _holds(identity.pid, crew):
            yield identity.pid


def holders(db: str) -> Iterator[int]:
    """Pids of all processes that have the crew file open, this one left out."""
    crew = os.path.realpath(db + ".crew")
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and _holds(int(name), crew):
            yield int(name)


def started(pid: int) -> int:
    """When a process started, in clock ticks since the machine's boot; 0 if there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """What tells this boot of the machine from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _holds(pid: int, crew: str) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(_link(f"{folder}/{fd}") == crew for fd in os.listdir(folder))
    except OSError:
        return False


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _kill(pid: int) -> bool:
    """Kills a member with its group, if it leads one."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
