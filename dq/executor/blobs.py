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
from hmac import compare_digest
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from dq.errors import DamagedPayload, DiskFull, SignatureMismatch, UnsafePlace

if TYPE_CHECKING:
    from dq.executor.signing import Signer

_MAGIC = b"dqb1"
_ALIGN = 64
_NAME = re.compile(r"[A-Za-z0-9-]{1,120}")
_durable: set[str] = set()  # folders whose names this process, or the one that it was forked from, has synced


class Reference(msgspec.Struct, array_like=True, frozen=True):
    """What the body of a payload says of a side file."""

    name: str
    size: int
    crc: int
    signature: bytes = b""  # of its content; b"" where no key is in use


_decoder = msgspec.msgpack.Decoder(Reference)


def reference(body: bytes) -> Reference:
    """Reads the body of a payload that names a side file. Raises DamagedPayload."""
    try:
        found = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedPayload(f"a payload should name a side file and does not: {error}") from error
    if not _NAME.fullmatch(found.name):
        raise DamagedPayload(f"a payload names the side file {found.name!r}, which is no such name")
    return found


def path_of(folder: str, name: str) -> str:
    """Where a side file lies: in one of 256 folders, so that none of them grows too large."""
    return os.path.join(folder, blake2b(name.encode(), digest_size=1).hexdigest(), name)


def write(folder: str, name: str, data: bytes, buffers: Sequence[memoryview], signer: Signer | None = None) -> bytes:
    """Writes a side file under `name` and a nonce; returns the body of the payload that names it.

    The file and its name are on disk when this returns, so a row that refers to it may be committed.

    Raises:
        DiskFull: There is no room for it.
        UnsafePlace: A symbolic link stands where its folder should be.
        OSError: It can't be written for another reason. Nothing is left behind either way.
    """
    name = f"{name}-{secrets.token_hex(4)}"
    path = path_of(folder, name)
    scratch = f"{path}.tmp"
    size = checksum = 0
    hasher = signer.hasher() if signer is not None else None
    try:
        _make_folders(folder, os.path.dirname(path))
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb", buffering=0) as file:
            for chunk in _layout(data, buffers):
                _write_all(fd, chunk)
                size, checksum = size + len(chunk), crc32(chunk, checksum)
                if hasher is not None:
                    hasher.update(chunk)
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
    return msgspec.msgpack.encode((name, size, checksum, *([hasher.digest()] if hasher is not None else [])))


def read(folder: str, body: bytes, signer: Signer | None = None) -> object:
    """The value in the side file that the body of a payload names.

    Out-of-band buffers are mapped, not copied; they are private to the reader and may be written.

    Raises:
        DamagedPayload: The file is gone or is not the one that was written.
        SignatureMismatch: Its content is not what was signed.
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
        if signer is None:
            view = memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_COPY))
        else:  # what is mapped could change between the check and the use
            view = memoryview(_read_all(fd, size))
    finally:
        os.close(fd)
    if crc32(view) != wanted.crc or view[: len(_MAGIC)] != _MAGIC:
        raise DamagedPayload(f"the side file {path} does not match its checksum")
    if signer is not None:
        hasher = signer.hasher()
        hasher.update(view)
        if not compare_digest(hasher.digest(), wanted.signature):
            raise SignatureMismatch(f"the side file {path} does not match its signature. Nothing of it is unpickled")
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


def _read_all(fd: int, size: int) -> bytearray:
    """A copy of a file, which a short read ends early."""
    data = bytearray(size)
    with open(fd, "rb", buffering=0, closefd=False) as file:
        at = 0
        while count := file.readinto(memoryview(data)[at:]):
            at += count
    return data


def _make_folders(folder: str, inner: str) -> None:
    """Makes the folders, and their names durable. That another process has made them does not say that it has synced them."""
    for path in (folder, inner):
        if os.path.islink(path):
            raise UnsafePlace(
                f"{path} is a symbolic link, and dq follows none: a value would be written to where it points. Look at it "
                f"with `ls -l {path}`, remove it, and keep the database in a folder that only you can write."
            )
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
