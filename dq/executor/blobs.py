"""Side files: payloads that are too large for a row of the database.

    magic "dqb1"   number of parts n (4 bytes)   n lengths (8 bytes each)   the parts, each at a multiple of 64 bytes

The first part is a pickle, the others are its out-of-band buffers. What a payload keeps of a side file is its name, its
size and its checksum. A file never changes once it has its name.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import pickle
import re
import secrets
import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from zlib import crc32

import msgspec

from dq.errors import DamagedPayload, DiskFull

_MAGIC = b"dqb1"
_ALIGN = 64
_NAME = re.compile(r"[A-Za-z0-9-]{1,120}")
_durable: set[str] = set()  # folders whose names this process, or the one that it was forked from, has synced


class Reference(msgspec.Struct, array_like=True, frozen=True):
    """What the body of a payload says of a side file."""

    name: str
    size: int
    crc: int


_decoder = msgspec.msgpack.Decoder(Reference)


def reference(body: bytes) -> Reference:
    """Reads the body of a payload that names a side file. Raises DamagedPayload."""
    try:
        found = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise DamagedPayload(f"a payload should name a side file and does not: {error}") from error
    if not _NAME.fullmatch(found.name):
        raise DamagedPayload(f"a payload names the side file {found.name!r}, which is no such name")
    return found


def path_of(folder: str, name: str) -> str:
    """Where a side file lies: in one of 256 folders, so that none of them grows too large."""
    return os.path.join(folder, blake2b(name.encode(), digest_size=1).hexdigest(), name)


def write(folder: str, name: str, data: bytes, buffers: Sequence[memoryview]) -> bytes:
    """Writes a side file under `name` and a nonce; returns the body of the payload that names it.

    The file and its name are on disk when this returns, so a row that refers to it may be committed.

    Raises:
        DiskFull: There is no room for it.
        OSError: It can't be written for another reason. Nothing is left behind either way.
    """
    name = f"{name}-{secrets.token_hex(4)}"
    path = path_of(folder, name)
    scratch = f"{path}.tmp"
    size = checksum = 0
    try:
        _make_folders(folder, os.path.dirname(path))
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb", buffering=0) as file:
            for chunk in _layout(data, buffers):
                _write_all(fd, chunk)
                size, checksum = size + len(chunk), crc32(chunk, checksum)
            os.fsync(file.fileno())
        os.rename(scratch, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = len(data) + sum(buffer.nbytes for buffer in buffers)
            raise DiskFull(
                f"no room for a value of {needed} bytes in {folder}: the disk is full or the quota is used up. "
                f"Free some space (`df -h {os.path.dirname(folder) or '.'}` shows how much there is)."
            ) from error
        raise
    _sync_folder(os.path.dirname(path))
    return msgspec.msgpack.encode(Reference(name, size, checksum))


def read(folder: str, body: bytes) -> object:
    """The value in the side file that the body of a payload names.

    Out-of-band buffers are mapped, not copied; they are private to the reader and may be written.

    Raises:
        DamagedPayload: The file is gone or is not the one that was written.
    """
    wanted = reference(body)
    path = path_of(folder, wanted.name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise DamagedPayload(f"the side file {path} can't be opened ({error.strerror}); its value is lost") from error
    try:
        size = os.fstat(fd).st_size
        if size != wanted.size or size < len(_MAGIC) + 4:
            raise DamagedPayload(f"the side file {path} has {size} bytes and should have {wanted.size}")
        view = memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_COPY))
    finally:
        os.close(fd)
    if crc32(view) != wanted.crc or view[: len(_MAGIC)] != _MAGIC:
        raise DamagedPayload(f"the side file {path} does not match its checksum")
    data, *buffers = _parts(view)
    return pickle.loads(data, buffers=buffers)


def _layout(data: bytes, buffers: Sequence[memoryview]) -> Iterator[memoryview]:
    parts = [memoryview(data), *(buffer.cast("B") if buffer.nbytes else memoryview(b"") for buffer in buffers)]
    head = _MAGIC + struct.pack(f"<I{len(parts)}Q", len(parts), *(len(part) for part in parts))
    yield memoryview(head)
    at = len(head)
    for part in parts:
        yield memoryview(bytes(-at % _ALIGN))
        yield part
        at += -at % _ALIGN + len(part)


def _parts(view: memoryview) -> Iterator[memoryview]:
    (count,) = struct.unpack_from("<I", view, len(_MAGIC))
    lengths = struct.unpack_from(f"<{count}Q", view, len(_MAGIC) + 4)
    at = len(_MAGIC) + 4 + 8 * count
    for length in lengths:
        at += -at % _ALIGN
        yield view[at : at + length]
        at += length


def _write_all(fd: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(fd, chunk) :]


def _make_folders(folder: str, inner: str) -> None:
    """Makes the folders, and their names durable. That another process has made them does not say that it has synced them."""
    known = os.path.abspath(inner)
    if known in _durable and os.path.isdir(inner):
        return
    for path in (folder, inner):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    _sync_folder(os.path.dirname(os.path.abspath(folder)))
    _sync_folder(folder)
    _durable.add(known)


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
