"""Where a database may lie: checks on the folder and the file, before SQLite touches either."""

from __future__ import annotations

import ctypes
import os
import shlex
import stat
from collections.abc import Callable

from dq.errors import NoSuchFolder, StoreError, UnsafePlace
from dq.store import faults

# File systems whose locks or shared memory can't be trusted between processes, by `f_type` of statfs(2).
UNSAFE_FILE_SYSTEMS = {
    0x6969: "NFS",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x517B: "SMB",
    0x01021997: "9p",
    0x65735546: "FUSE",
    0x5346414F: "AFS",
}
SMALLEST_PAGE = 512  # bytes
OWN = ("-wal", "-shm", "-journal")  # what SQLite puts beside the file; it follows a symbolic link at the first
BESIDE = (".lock", ".crew", ".slots", ".stacks")  # what dq puts there
_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # what a rollback journal begins with; 16 bytes on, the pages of its file


def file_system(folder: str) -> int:
    """The `f_type` of the file system that holds `folder`. Raises OSError."""
    buffer = (ctypes.c_ulong * 64)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(folder), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), folder)
    return int(buffer[0]) & 0xFFFFFFFF


def check_folder(path: str) -> None:
    """Raises NoSuchFolder or UnsafePlace."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise NoSuchFolder(
            f"there is no folder {folder} to hold {os.path.basename(path)}. dq makes the file but not its folder: a typing "
            f"error would go unseen. Make it with `mkdir -p {folder}`, or correct the path."
        )
    name = UNSAFE_FILE_SYSTEMS.get(file_system(folder))
    if name is not None:
        raise UnsafePlace(
            f"{folder} lies on {name}: locks there don't hold between processes, and SQLite could damage the file. "
            "Put the database on a local disk."
        )


def check_file(path: str) -> bool:
    """Whether the file exists. Raises UnsafePlace or NotADatabase for what must not be opened."""
    for suffix in OWN:
        _check_kind(path + suffix, stat.S_ISREG)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{path} can't be looked at: {error.strerror}. Check the path and its permissions.") from error
    if stat.S_ISLNK(found.st_mode):
        raise UnsafePlace(
            f"{path} is a symbolic link: the write-ahead log would lie beside the link for some and beside the file for "
            f"others. Use the file itself: {os.path.realpath(path)}"
        )
    if not stat.S_ISREG(found.st_mode):
        raise faults.not_a_database(path, "it is a folder or a device")
    # SQLite takes a file of less than a page for a new database, and would write over it.
    if 0 < found.st_size < SMALLEST_PAGE and not _was_being_made(path):
        raise faults.not_a_database(path, "it is too short")
    if found.st_nlink != 1:
        raise UnsafePlace(
            f"{path} has {found.st_nlink} names (hard links): under each name SQLite would use another write-ahead log. "
            f"Remove the other names; `find -inum {found.st_ino}` lists them."
        )
    return True


def check_beside(path: str) -> None:
    """Looks at what dq keeps beside the file, before any of it is made or opened. Raises UnsafePlace.

    A link that somebody has put there would have another file truncated, or written to, in the name of this user.
    """
    for suffix in BESIDE:
        _check_kind(path + suffix, stat.S_ISREG)
    _check_kind(path + ".sock", stat.S_ISSOCK)
    _check_kind(path + ".blobs", stat.S_ISDIR)


def _check_kind(path: str, is_kind: Callable[[int], bool]) -> None:
    try:
        found = os.lstat(path)
    except OSError:
        return  # nothing is there; a folder that can't be looked into fails where the file itself is opened
    if stat.S_ISLNK(found.st_mode):
        raise faults.link(path)
    if not is_kind(found.st_mode):
        raise UnsafePlace(
            f"{path} is not what dq puts there, and would be written to or replaced. dq leaves it as it is and stops here. "
            f"Look at it (`ls -ld {shlex.quote(path)}`) and move it away, or choose another place for the database."
        )
    if stat.S_ISREG(found.st_mode) and found.st_nlink != 1:
        raise UnsafePlace(
            f"{path} has {found.st_nlink} names (hard links), so what dq writes there would change another file. dq leaves "
            f"it as it is and stops here. Remove it with `rm {shlex.quote(path)}` when no process of dq works on the file."
        )


def _was_being_made(path: str) -> bool:
    """Whether the machine stopped while SQLite wrote the first page: its journal says that the file was empty before."""
    try:
        with open(f"{path}-journal", "rb") as file:
            head = file.read(20)
    except OSError:
        return False
    return head[:8] == _JOURNAL and head[16:] == bytes(4)


def create_file(path: str) -> None:
    """Makes the empty file, mode 0600, so that its name survives a power cut. Raises ReadOnlyFile, DiskFull, UnsafePlace."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        check_file(path)
    except OSError as error:
        raise faults.explain_os(error, path) from error
