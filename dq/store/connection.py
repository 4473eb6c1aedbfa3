"""Opens the file for its single writer, with every guard SQLite has turned on."""

from __future__ import annotations

import os
import time

import apsw

from dq.errors import DqError, StoreError
from dq.store import faults, migrate, place
from dq.store.sql import SQL

# Before this release a checkpoint could overlap a commit that resets the log, and lose frames.
SQLITE_MIN = (3, 51, 3)
BUSY_MS = 5000
CACHE_KIB = 32 * 1024
LOG_LIMIT = 64 << 20  # bytes; a log that a slow reader made longer is cut back to this
CHECK_AFTER_CLEAN = 0.02  # seconds that looking for damaged pages may take
CHECK_AFTER_CRASH = 0.1
CHECK_AFTER_ERROR = 10.0


def sqlite_version() -> str:
    """The SQLite that dq uses."""
    return apsw.sqlite_lib_version()


def require_sqlite(version: str) -> None:
    """Raises StoreError for an SQLite that could lose commits.

    >>> require_sqlite("3.51.3")
    """
    if tuple(int(part) for part in version.split(".")) < SQLITE_MIN:
        raise StoreError(
            f"SQLite {version} can lose commits when a checkpoint meets a log reset. dq needs 3.51.3 or later: "
            "`pip install -U apsw`."
        )


def open_writer(path: str, *, create: bool, now: int, vfs: str | None = None) -> apsw.Connection:
    """The one read-write connection. `now` is recorded in a new file (microseconds UTC); `vfs` is as for `Store.open`.

    Raises NoSuchFolder, ReadOnlyFile, DiskFull, NotADatabase, ForeignDatabase, NewerSchema, CorruptDatabase,
    UnsafePlace, or StoreError.
    """
    require_sqlite(apsw.sqlite_lib_version())
    place.check_folder(path)
    if not place.check_file(path):
        if not create:
            raise StoreError(f"there is no database {path}. Check the path, or start a workflow to make one.")
        place.create_file(path)
    with faults.explained(path):
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW, vfs=vfs)
        try:
            _prepare(connection, path, now)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: apsw.Connection, path: str, now: int) -> None:
    connection.set_busy_timeout(BUSY_MS)
    guard(connection)
    if connection.readonly("main"):
        raise faults.read_only(path, "the file, its folder or its file system is read-only")
    # The writer checkpoints by its own call. The automatic one swallows a failed sync; and one at the close, after a
    # failed sync, could copy into the database what the disk has made of the log.
    connection.wal_autocheckpoint(0)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    ours = migrate.check(connection, path)
    connection.pragma("synchronous", "normal")
    connection.pragma("journal_size_limit", LOG_LIMIT)
    connection.pragma("cache_size", -CACHE_KIB)
    connection.pragma("temp_store", "memory")
    if ours:
        migrate.use_wal(connection, path)
        migrate.upgrade(connection)
        engine = connection.execute(SQL["engine"]).get
        check_pages(connection, path, CHECK_AFTER_CLEAN if engine and engine[2] else CHECK_AFTER_CRASH)
        if engine is None:
            raise faults.corrupt(path, "the row of dq_engine is gone")
    else:
        migrate.create(connection, path, now)


def guard(connection: apsw.Connection) -> None:
    """Makes a hostile or damaged schema harmless."""
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.pragma("cell_size_check", True)


def check_pages(connection: apsw.Connection, path: str, seconds: float) -> None:
    """Looks for damaged pages, for that long at most. Raises CorruptDatabase."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 1000, id="check")
    try:
        finding = connection.pragma("quick_check", 1)
    except apsw.InterruptError:
        finding = "ok"
    finally:
        connection.set_progress_handler(None, id="check")
    if finding != "ok":
        raise faults.corrupt(path, " ".join(str(finding).split()))


def suspect(connection: apsw.Connection, path: str, error: BaseException | None) -> None:
    """Raises CorruptDatabase where an error that nobody has foreseen comes from damaged pages; looks for some seconds.

    What such pages hold can be of any type and say anything, and the code that reads them relies on what was written.
    """
    if isinstance(error, Exception) and not isinstance(error, DqError):
        with faults.explained(path):
            check_pages(connection, path, CHECK_AFTER_ERROR)


def absolute(path: str | os.PathLike[str]) -> str:
    """One spelling of a path, so that a change of the working folder changes nothing."""
    return os.path.abspath(os.fspath(path))
