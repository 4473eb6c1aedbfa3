"""What SQLite's errors mean to a user of dq: what happened, why, and what helps."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from dq.errors import CorruptDatabase, DiskFull, NotADatabase, ReadOnlyFile, StoreError, UnsafePlace

# SQLite says nothing else of these where there is no room. Other failures (of a sync!) on a full disk are failures.
_SHARED_MEMORY = {apsw.SQLITE_IOERR_SHMOPEN, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMMAP}


def disk_full(path: str) -> DiskFull:
    return DiskFull(
        f"no room left for {path}: the disk is full or the quota is used up. Nothing that was acknowledged is lost. "
        f"Free some space (`df -h {os.path.dirname(path) or '.'}` shows how much there is)."
    )


def read_only(path: str, why: str) -> ReadOnlyFile:
    return ReadOnlyFile(
        f"{path} can't be written: {why}. dq writes the file and others beside it. "
        "Make the file and its folder writable, or choose another place."
    )


def link(path: str) -> UnsafePlace:
    return UnsafePlace(
        f"{path} is a symbolic link, and dq follows none: somebody may have put it there to have another file read or "
        f"written in your name. dq leaves it, and what it points to, as they are and stops here. Look at it with "
        f"`ls -l {shlex.quote(path)}`, remove it with `rm {shlex.quote(path)}`, and keep the database in a folder that only you can write."
    )


def explain_os(error: OSError, path: str) -> StoreError:
    """The error of dq.errors that says the same as the kernel's, about a file that can't be made or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return read_only(path, error.strerror or str(error))
    if error.errno in (errno.ELOOP, errno.ENOTDIR) and os.path.islink(path):
        return link(path)
    return StoreError(f"{path} can't be made or written: {error.strerror}. Check the path (`ulimit -n` too).")


def not_a_database(path: str, why: str = "it does not begin like one") -> NotADatabase:
    return NotADatabase(
        f"{path} is not an SQLite database: {why}. dq leaves it as it is. Choose another path, or move the file away."
    )


def corrupt(path: str, finding: str) -> CorruptDatabase:
    return CorruptDatabase(
        f"{path} is damaged: {finding}. dq has written nothing to it. Copy {path} and {path}-wal to a safe place, then "
        f'save what can be read with `sqlite3 {path} ".recover" | sqlite3 rescued.db`, or go back to a backup.'
    )


def room(folder: str) -> int:
    """Bytes that are free where a folder lies; very many where that can't be told."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 1 << 62
    return found.f_bavail * found.f_frsize


def explain(error: apsw.Error, path: str) -> StoreError:
    """The error of dq.errors that says the same as SQLite's."""
    folder = os.path.dirname(path) or "."
    if isinstance(error, apsw.FullError):
        return disk_full(path)
    if isinstance(error, apsw.NotADBError):
        return not_a_database(path)
    if isinstance(error, apsw.CorruptError):
        return corrupt(path, str(error))
    if isinstance(error, apsw.ReadOnlyError):
        return read_only(path, str(error))
    if isinstance(error, apsw.CantOpenError) and not os.access(folder, os.W_OK):
        return read_only(path, f"the folder {folder} is read-only")
    unmade = isinstance(error, apsw.CantOpenError) or getattr(error, "extendedresult", 0) in _SHARED_MEMORY
    if unmade and not room(folder):
        return disk_full(path)
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return StoreError(
            f"{path} is locked by another program that writes to it ({error}). Only dq may write to the file: close the "
            f"other program (`fuser {path}` names it). dq starts again from what is on disk."
        )
    return StoreError(
        f"{path} can't be read or written ({type(error).__name__}: {error}). Look at the disk (`dmesg`), at the "
        "permissions and at the number of open files (`ulimit -n`). dq starts again from what is on disk."
    )


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns SQLite's errors inside the block into those of dq.errors; text that is none is damage, too."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise corrupt(path, f"a text in it is no UTF-8 ({error.reason})") from error
    except apsw.Error as error:
        raise explain(error, path) from error
