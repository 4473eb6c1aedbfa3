"""Side files that nobody refers to: found and unlinked in a thread of their own, since a disk may take its time.

A copy that is being made of the file holds the folder by a shared flock, which ends with its process; nothing is unlinked
meanwhile. The thread never touches the database.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

DEAD_ATTEMPT = 3600.0  # seconds; what an attempt wrote that has come to nothing stays that long
UNSENT = 24 * 3600.0  # seconds; what somebody wrote who may still send the row that names it
_BATCH = 64  # files that are unlinked between two looks at who holds the folder
_RESULT = re.compile(r"s\d+-e(\d+)-")
_OWNER = re.compile(r"[a-z](\d+)-")


class SideFile(NamedTuple):
    """A file in the folder of side files."""

    name: str  # as payloads name it
    path: str
    size: int
    written: float  # seconds since 1970

    @property
    def epoch(self) -> int:
        """The claim whose attempt wrote it, 0 for what is no attempt's."""
        found = _RESULT.match(self.name)
        return int(found[1]) if found else 0

    @property
    def owner(self) -> int:
        """The id of the step, run or signal that it belongs to, 0 where the name does not say."""
        found = _OWNER.match(self.name)
        return int(found[1]) if found else 0

    def is_due(self, now: float) -> bool:
        """Whether it is old enough that nobody can be about to refer to it."""
        return now - self.written > (DEAD_ATTEMPT if self.epoch else UNSENT)


def listing(folder: str) -> list[SideFile]:
    """All side files, those that are being written too. Raises OSError; a folder that is not there has none."""
    found: list[SideFile] = []
    try:
        inner = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    for path in inner:
        for entry in os.scandir(path):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it got its name, or was given up, meanwhile
            name = entry.name.removesuffix(".tmp")
            found.append(SideFile(name, entry.path, status.st_size, status.st_mtime))
    return found


def hold(folder: str, mode: int = fcntl.LOCK_SH) -> int:
    """Locks the folder; returns the descriptor that holds the lock, -1 where there is no folder.

    Raises BlockingIOError where LOCK_NB is in `mode` and somebody else has it.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Task:
    """Work in a thread: `done` turns true, and then there is a `found` or an `error`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.done = False
        self.error: OSError | None = None
        self.found: list[SideFile] = []
        self.held = False  # whether somebody makes a copy, so that not all could be unlinked

    def look(self, named: set[str]) -> Task:
        """Lists the side files that may go: those that are named, and those that are old enough."""
        return self._start(lambda: self._look(named))

    def unlink(self, files: list[SideFile]) -> Task:
        """Unlinks these; `found` are those that are gone."""
        return self._start(lambda: self._unlink(files))

    def _start(self, work: Callable[[], None]) -> Task:
        def run() -> None:
            try:
                work()
            except OSError as error:
                self.error = error
            finally:
                self.done = True

        threading.Thread(target=run, name="dq-janitor", daemon=True).start()
        return self

    def _look(self, named: set[str]) -> None:
        now = time.time()
        self.found = [file for file in listing(self._folder) if file.name in named or file.is_due(now)]

    def _unlink(self, files: list[SideFile]) -> None:
        for at in range(0, len(files), _BATCH):
            try:
                lock = hold(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.held = True
                return
            if lock < 0:
                return
            try:
                for file in files[at : at + _BATCH]:
                    with contextlib.suppress(FileNotFoundError):  # somebody has tidied up by hand
                        os.unlink(file.path)
                        self.found.append(file)
            finally:
                os.close(lock)
