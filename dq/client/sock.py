"""Where the supervisor of a database file listens, and how one connects to it."""

from __future__ import annotations

import os
import socket
import struct

from dq.errors import StoreError, UnsafePlace

SUFFIX = ".sock"
_PATH_MAX = 100  # bytes; the kernel's limit for the address of a Unix socket is 108
_CREDENTIALS = struct.Struct("3i")


def dial(db: str) -> socket.socket | None:
    """A connected socket, or None where nobody listens.

    Raises:
        StoreError: The socket is another user's.
        UnsafePlace: Another user's process listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _connect(sock, db + SUFFIX)
        _check_peer(sock, db)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError, ConnectionResetError):
        sock.close()
        return None
    except PermissionError as error:
        sock.close()
        raise StoreError(f"{db}{SUFFIX} belongs to another user; only its owner can work on {db}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(sock: socket.socket, path: str) -> None:
    """A path that is too long for the kernel is reached through its opened folder."""
    if len(os.fsencode(path)) <= _PATH_MAX:
        sock.connect(path)
        return
    folder, name = os.path.split(path)
    fd = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def _check_peer(sock: socket.socket, db: str) -> None:
    """In a folder that others may write, anybody could listen under the supervisor's name."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    if uid not in (os.geteuid(), 0):
        raise UnsafePlace(
            f"{db}{SUFFIX} is served by process {pid} of another user (uid {uid}), which could read what is sent there. "
            "Use a database in a folder that only you can write."
        )
