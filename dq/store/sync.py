"""The write-ahead log as a file: its explicit sync, and its growth ahead of need.

All calls go through SQLite's own file object, so that a simulated storage sees them and no second descriptor is ever
opened on a file of the database (closing one would drop SQLite's locks).
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import apsw

from dq.errors import StoreError

_FCNTL_JOURNAL_POINTER = 28
_SYNC_NORMAL_DATAONLY = 0x00002 | 0x00010  # the unix VFS makes it one fdatasync
_CHUNK = 1 << 16  # bytes; the unix VFS refuses writes of 128 KiB or more

# ctypes releases the GIL around calls of these types.
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_Read = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int64)
_Write = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int64)
_FileSize = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64))


class _Methods(ctypes.Structure):
    """The head of sqlite3_io_methods."""


_Methods._fields_ = [
    ("version", ctypes.c_int),
    ("close", ctypes.c_void_p),
    ("read", _Read),
    ("write", _Write),
    ("truncate", ctypes.c_void_p),
    ("sync", _Sync),
    ("file_size", _FileSize),
]


class _File(ctypes.Structure):
    """sqlite3_file."""


_File._fields_ = [("methods", ctypes.POINTER(_Methods))]


class Wal:
    """The write-ahead log of an open connection; valid as long as that is."""

    def __init__(self, connection: apsw.Connection, path: str) -> None:
        self._path = path
        # The owner of the file object must outlive the pointer.
        self._connection = connection
        self._file = ctypes.c_void_p()
        found = connection.file_control("main", _FCNTL_JOURNAL_POINTER, ctypes.addressof(self._file))
        if not found or not self._file.value:
            raise StoreError(f"{path} has no open write-ahead log: this SQLite can't be synced explicitly.")
        methods: Any = ctypes.cast(self._file, ctypes.POINTER(_File)).contents.methods.contents
        self._sync = methods.sync
        self._read = methods.read
        self._write = methods.write
        self._file_size = methods.file_size

    def sync(self) -> float:
        """Makes all that is committed durable. Returns the seconds it took. May run in any thread.

        Raises StoreError when the disk says no: what is on it is unknown then, and a second try proves nothing.
        """
        began = time.perf_counter()
        status = _result(self._sync, self._file, _SYNC_NORMAL_DATAONLY)
        if status != apsw.SQLITE_OK:
            raise StoreError(
                f"{self._path}-wal can't be synced to disk (SQLite result {status}). What was not acknowledged may be lost. "
                "Look at the disk (`dmesg`). dq starts again from what is really there."
            )
        return time.perf_counter() - began

    def size(self) -> int:
        """Bytes."""
        size = ctypes.c_int64()
        if _result(self._file_size, self._file, ctypes.byref(size)) != apsw.SQLITE_OK:
            raise StoreError(f"{self._path}-wal can't be measured.")
        return size.value

    def grow(self, size: int) -> bool:
        """Writes zeros up to `size` bytes; False where the disk has no room. Only between transactions.

        Commits then overwrite blocks that exist, and a sync need not write the file's metadata. SQLite keeps count of
        the valid frames itself and takes zeros for the end of the log.

        Raises StoreError where the disk fails otherwise.
        """
        at = self.size()
        while at < size:
            count = min(_CHUNK, size - at)
            status = _result(self._write, self._file, bytes(count), count, at)
            if status == apsw.SQLITE_FULL:
                return False
            if status != apsw.SQLITE_OK:
                raise StoreError(
                    f"{self._path}-wal can't be written (SQLite result {status}). Look at the disk (`dmesg`)."
                )
            at += count
        return True

    def renew(self, size: int) -> None:
        """Writes so many bytes anew, as they read, so that the next sync has them to write. Only while nobody writes the log.

        Raises StoreError.
        """
        buffer = ctypes.create_string_buffer(_CHUNK)
        for at in range(0, size, _CHUNK):
            count = min(_CHUNK, size - at)
            for call in (self._read, self._write):
                status = _result(call, self._file, buffer, count, at)
                if status != apsw.SQLITE_OK:
                    raise StoreError(
                        f"{self._path}-wal can't be written anew (SQLite result {status}). Look at the disk (`dmesg`). "
                        "dq starts again from what is really there."
                    )


def _result(call: Callable[..., int], *values: object) -> int:
    """What SQLite's file object answers. One of a storage that is written in Python raises where others answer."""
    try:
        return call(*values)
    except SystemError as error:
        return int(getattr(error.__cause__, "extendedresult", apsw.SQLITE_IOERR))
