"""What keeps a file in shape: deleting what ended long ago, and copies of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dq.client.launcher import revive
from dq.errors import StoreError
from dq.executor import frames

if TYPE_CHECKING:
    from datetime import timedelta

    from dq.client.connection import Connection


class Deleted(NamedTuple):
    """What was deleted, or would be.

    Attributes:
        runs: How many runs.
        steps: How many steps, those of these runs included.
        signals: How many signals to these runs.
        files: How many side files.
        bytes: The size of those.
        held: Whether side files stay for the next time, since somebody makes a copy of the database.
    """

    runs: int
    steps: int
    signals: int
    files: int
    bytes: int
    held: bool


class Backup(NamedTuple):
    """A copy of a database, verified.

    Attributes:
        path: The copy.
        bytes: Its size.
        files: How many side files it has, in the folder beside it.
        file_bytes: The size of those.
        linked: How many of them are hard links to the original ones.
        seconds: How long the copy of the database took, without the side files and the check.
    """

    path: str
    bytes: int
    files: int
    file_bytes: int
    linked: int
    seconds: float


class Upkeep:
    """The part of an engine that looks after its file."""

    path: str
    _line: Connection

    def gc(self, older_than: timedelta, *, keep_failed: bool = False, dry_run: bool = False) -> Deleted:
        """Deletes runs, and steps submitted alone, that ended longer ago than that, with all that belongs to them.

        Unfinished work stays, and so does what it needs: child runs whose parent has not ended, steps that `dedup`
        still guards. The id of a deleted run is free: started again, it is a new run. The space is used again by what
        comes; `dq gc --compact` gives it back to the system. Work goes on meanwhile.

        Args:
            older_than: How long ago.
            keep_failed: Whether runs and steps that failed, or are dead, stay.
            dry_run: Whether it is only counted.

        Raises:
            ValueError: The time is negative.
            DiskFull: There is no room to note what is deleted.

        Example:
            engine.gc(timedelta(days=30))
        """
        micros = int(older_than.total_seconds() * 1_000_000)
        if micros < 0:
            raise ValueError(f"older_than is {older_than}; it is how long ago something ended")
        told = cast(frames.Swept, self._line.ask(lambda ticket: frames.Sweep(ticket, micros, keep_failed, dry_run)))
        return Deleted(told.runs, told.steps, told.signals, told.files, told.size, told.held)

    def backup(self, path: str | os.PathLike[str]) -> Backup:
        """Makes a consistent copy of the database and its side files, while work goes on, and verifies it.

        Everything that was acknowledged before this call is in it. `dq up --db COPY` goes on from it.

        Args:
            path: Where; neither the file nor the folder of its side files may be there.

        Raises:
            StoreError: It can't be made, is there already, or does not pass the check; then nothing is left of it.
            DamagedPayload: A side file is gone or is not what was written; `dq doctor` tells which.

        Example:
            engine.backup("/backups/movie-monday.db")
        """
        self._line.flush()
        return backup(self.path, path)


def kept(keep: timedelta | None) -> float:
    """Seconds, 0 for ever. Raises ValueError."""
    seconds = keep.total_seconds() if keep is not None else 0.0
    if keep is not None and seconds <= 0:
        raise ValueError(f"keep is {keep}; it is how long what has ended stays on record, or None for ever")
    return seconds


def backup(db: str, path: str | os.PathLike[str]) -> Backup:
    """The same for a file that nobody in this process works on. Raises StoreError, DamagedPayload."""
    return Backup(**_run("dq.crew.backup", db, os.path.abspath(os.fspath(path))))


def compact(db: str) -> tuple[int, int]:
    """Gives the space of what was deleted back to the system. Returns the file's size before and after, in bytes.

    Raises DatabaseInUse while a supervisor works on it, DiskFull, StoreError.
    """
    told = _run("dq.crew.compacting", db)
    return told["before"], told["after"]


def _run(module: str, db: str, *words: str) -> Any:
    """What a process of its own tells of its work.

    In this one, user code may use an SQLite of its own, and when that closes the file it drops the other one's locks.
    """
    command = [sys.executable, "-P", "-m", module, db, *words]
    environ = os.environ | {"SQLITE_TMPDIR": os.path.dirname(db)}  # where there is room for a database there is more
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environ, check=False)
    try:
        told = json.loads(done.stdout)
    except ValueError:
        raise StoreError(f"{module} did not finish its work on {db}: it ended with code {done.returncode}") from None
    if "error" in told:
        raise revive(told["error"], told["text"])
    return told
