"""A disk that keeps a record of all that SQLite asks of it, and fails where it is told to.

The files are real, so SQLite's locks and shared memory are its own. Each write, truncation, sync, creation and deletion
goes into one list, from which `platter.py` makes what a power cut would leave.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import apsw

_numbers = itertools.count()
# Those that SQLite makes as it goes along: the unix VFS syncs their folder with the first sync of the file.
_MADE = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL

WRITE, TRUNCATE, BEGIN_SYNC, END_SYNC, FAILED_SYNC, CREATE, DELETE, MARK = range(8)
KINDS = ("write", "truncate", "sync", "sync ended", "sync failed", "create", "delete", "mark")

EIO, FULL, SHORT, SYNC, DELETE_FAILS = "EIO", "ENOSPC", "short write", "EIO of syncs", "EIO of deletions"


class Event(NamedTuple):
    """One thing that the disk was asked, in the order of time."""

    kind: int
    file: int = 0  # a number for each file that there was, whatever its name
    at: int = 0  # WRITE: where; TRUNCATE: the size; syncs: their number; MARK: what
    data: bytes = b""
    name: str = ""
    folder: bool = False  # whether the folder is synced with it

    def __repr__(self) -> str:
        return f"{KINDS[self.kind]} {self.name}@{self.at}+{len(self.data)}"


class Fault:
    """What goes wrong: the n-th call, or all from the n-th on. Calls are counted from 0."""

    def __init__(self, kind: str, at: int, *, lasting: bool = False, reads: bool = False) -> None:
        self.kind = kind
        self.at = at
        self.lasting = lasting
        self.reads = reads  # whether reads count, and fail, too
        self.on = True
        self.calls = 0
        self.fired = 0
        self.failed = ""  # the calls that did

    def strikes(self, call: str) -> bool:
        if not self.on or call not in _STRUCK[self.kind] or (call == "xRead" and not self.reads):
            return False
        number, self.calls = self.calls, self.calls + 1
        hit = number >= self.at if self.lasting else number == self.at
        self.fired += hit
        self.failed += f" {call}" if hit else ""
        return hit


_STRUCK = {
    EIO: {"xRead", "xWrite", "xSync", "xTruncate", "xDelete", "xFileSize", "xOpen"},
    FULL: {"xWrite", "xSync", "xOpen"},
    SHORT: {"xWrite"},
    SYNC: {"xSync"},
    DELETE_FAILS: {"xDelete"},
}
_CODES = {
    "xRead": apsw.SQLITE_IOERR_READ, "xWrite": apsw.SQLITE_IOERR_WRITE, "xSync": apsw.SQLITE_IOERR_FSYNC,
    "xTruncate": apsw.SQLITE_IOERR_TRUNCATE, "xDelete": apsw.SQLITE_IOERR_DELETE,
    "xFileSize": apsw.SQLITE_IOERR_FSTAT, "xOpen": apsw.SQLITE_CANTOPEN,
}  # fmt: skip


def _error(call: str, kind: str) -> apsw.Error:
    full = kind != EIO and call == "xWrite"
    error = apsw.FullError(kind) if full else apsw.CantOpenError(kind) if call == "xOpen" else apsw.IOError(kind)
    error.extendedresult = apsw.SQLITE_FULL if full else _CODES[call]  # type: ignore[union-attr]
    return error


class Disk(apsw.VFS):
    """Files in a folder, with a record of what happens to them. `with Disk(folder) as disk: Store.open(..., vfs=disk.name)`.

    Attributes:
        base: What the files held at first, by name.
        first: Their numbers.
        events: All that has happened.
        before: Called before each of them; it may look around, but not at the files.
        fault: What fails.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"disk-{os.getpid()}-{next(_numbers)}"
        self.base = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if _kept(path.name)}
        self.files: dict[str, int] = {}
        self.events: list[Event] = []
        self.before: Callable[[], None] | None = None
        self.during_sync: Callable[[], None] | None = None  # called while the sync is under way
        self.fault: Fault | None = None
        self._lock = threading.RLock()
        self._count = itertools.count(1)
        self._syncs = itertools.count()
        for name in self.base:
            self.files[name] = next(self._count)
        self.first = dict(self.files)
        super().__init__(self.name, "unix", maxpathname=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unregister()

    def mark(self, number: int) -> None:
        """Puts a mark into the record: whatever follows comes after it."""
        self.record(Event(MARK, at=number))

    def record(self, event: Event) -> None:
        with self._lock:
            if self.before is not None and event.kind != MARK:
                before, self.before = self.before, None  # it may mark
                before()
                self.before = before
            self.events.append(event)

    def meets(self, call: str) -> None:
        """Raises if this call is to fail."""
        if self.fault is not None and self.fault.strikes(call):
            raise _error(call, self.fault.kind)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 -- SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or os.path.dirname(path) != str(self.folder):
            return apsw.VFSFile("unix", name, flags)
        self.meets("xOpen")
        fresh = os.path.basename(path) not in self.files
        file = File(self, path, name, flags)
        if fresh:
            # The database itself is made by dq, which syncs its folder.
            number = self.files[file.short] = next(self._count)
            self.record(Event(CREATE, number, name=file.short, folder=not flags[0] & _MADE))
        file.number = self.files[file.short]
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.meets("xDelete")
        short = os.path.basename(filename)
        if short in self.files:
            self.record(Event(DELETE, self.files[short], name=short, folder=syncdir))
        super().xDelete(filename, syncdir)
        self.files.pop(short, None)

    def excepthook(
        self, etype: type[BaseException] | None, evalue: BaseException | None, etraceback: TracebackType | None
    ) -> bool:
        """What is raised on purpose needs no report."""
        return True

    def next_sync(self) -> int:
        return next(self._syncs)


class File(apsw.VFSFile):
    """One open file."""

    def __init__(self, disk: Disk, path: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.disk = disk
        self.short = os.path.basename(path)
        self.number = 0
        self._new = bool(flags[0] & _MADE and flags[0] & apsw.SQLITE_OPEN_CREATE)  # its folder is not synced yet
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self.disk.meets("xRead")
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        try:
            self.disk.meets("xWrite")
        except apsw.FullError:
            assert self.disk.fault is not None
            if self.disk.fault.kind == SHORT:
                self._write(data[: len(data) // 2], offset)
            raise
        self._write(data, offset)

    def _write(self, data: bytes, offset: int) -> None:
        self.disk.record(Event(WRITE, self.number, offset, bytes(data), self.short))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self.disk.meets("xTruncate")
        self.disk.record(Event(TRUNCATE, self.number, newsize, name=self.short))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        number = self.disk.next_sync()
        self.disk.record(Event(BEGIN_SYNC, self.number, number, name=self.short))
        try:
            self.disk.meets("xSync")
        except apsw.Error:
            self.disk.record(Event(FAILED_SYNC, self.number, number, name=self.short))
            raise
        if self.disk.during_sync is not None:
            self.disk.during_sync()
        # The kernel keeps what is written in any case, so there is nothing to wait for.
        folder, self._new = self._new, False
        self.disk.record(Event(END_SYNC, self.number, number, name=self.short, folder=folder))

    def xFileSize(self) -> int:  # noqa: N802
        self.disk.meets("xFileSize")
        return super().xFileSize()

    def excepthook(
        self, etype: type[BaseException] | None, evalue: BaseException | None, etraceback: TracebackType | None
    ) -> bool:
        """What is raised on purpose needs no report."""
        return True


def _kept(name: str) -> bool:
    return name in {"f.db", "f.db-wal", "f.db-journal"}
