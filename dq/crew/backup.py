"""Makes a copy of a database with its side files: `python -m dq.crew.backup F.db COPY.db`. People use `dq backup`.

All is made in a folder `COPY.db.part`, verified there, and gets its names last, so that a kill at any moment leaves either a
whole copy or none. While it lasts, the folder of side files is held by a lock that ends with this process: the supervisor
unlinks nothing meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from zlib import crc32

from dq import errors
from dq.crew import janitor
from dq.executor import blobs
from dq.executor.blobs import Reference
from dq.model.payload import unseal
from dq.store import copying, faults, place
from dq.store.reader import Reader

_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
_CHUNK = 1 << 20  # bytes
_NAMING = "naming"  # a file that says that the copy is whole and is being given its names


def main(arguments: list[str]) -> int:
    try:
        told: dict[str, object] = make(*arguments)
    except errors.DqError as error:
        told = {"error": type(error).__name__, "text": str(error)}
    sys.stdout.write(json.dumps(told))
    return 1 if "error" in told else 0


def make(db: str, target: str) -> dict[str, object]:
    """Makes the copy; returns what there is to say of it. Raises StoreError and its subclasses."""
    place.check_folder(target)
    try:
        with _workshop(target) as folder:
            _require_free(target)
            made = os.path.join(folder, "copy.db")
            lock = janitor.hold(db + ".blobs")
            try:
                with Reader.open(db) as reader:
                    seconds = copying.copy(reader, made)
                if lock < 0:
                    lock = janitor.hold(db + ".blobs")  # it was made meanwhile
                with Reader.open_copy(made) as copy:
                    _check(copy, made)
                    files = list(_references(copy))
                linked = _take_files(db + ".blobs", made + ".blobs", files)
            finally:
                if lock >= 0:
                    os.close(lock)
            size = os.path.getsize(made)
            _publish(folder, target, bool(files))
    except OSError as error:
        raise faults.explain_os(error, str(error.filename or target)) from error
    told = {"path": target, "bytes": size, "files": len(files), "file_bytes": sum(file.size for file in files)}
    return {**told, "linked": linked, "seconds": round(seconds, 3)}


def _require_free(target: str) -> None:
    for path in (target, target + ".blobs"):
        if os.path.lexists(path):
            raise errors.StoreError(
                f"{path} is there already, and a copy never overwrites anything. Choose another name, or remove it."
            )


@contextlib.contextmanager
def _workshop(target: str) -> Iterator[str]:
    """A folder beside the target, ours alone; what an earlier one has left there that was killed is thrown away."""
    folder = f"{target}.part"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    try:
        lock = janitor.hold(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise errors.StoreError(f"another process makes a copy at {target} just now; it works in {folder}.") from None
    try:
        if os.path.exists(os.path.join(folder, _NAMING)) and not os.path.lexists(target):
            shutil.rmtree(target + ".blobs", ignore_errors=True)  # it was killed between its two renames
        _empty(folder)
        yield folder
    finally:
        _empty(folder)
        with contextlib.suppress(OSError):
            os.rmdir(folder)
        os.close(lock)


def _empty(folder: str) -> None:
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _check(copy: Reader, path: str) -> None:
    findings = copy.findings(1)
    if findings:
        raise faults.corrupt(path, f"the copy is as damaged as what it was made of: {findings[0]}")


def _references(copy: Reader) -> Iterator[Reference]:
    """The side files that the copy refers to, each once."""
    seen: set[str] = set()
    for payloads in copy.archive().payloads_aside():
        for payload in payloads:
            found = blobs.reference(bytes(unseal(payload)[1]))
            if found.name not in seen:
                seen.add(found.name)
                yield found


def _take_files(source: str, target: str, files: list[Reference]) -> int:
    """Links or copies side files, and checks each; returns how many are links. Raises DamagedPayload, OSError."""
    linked = 0
    folders: set[str] = set()
    for file in files:
        path = blobs.path_of(target, file.name)
        folder = os.path.dirname(path)
        if folder not in folders:
            for needed in (target, folder):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(needed, 0o700)
            folders.add(folder)
        linked += _take(blobs.path_of(source, file.name), path)
        _verify(path, file)
    for folder in sorted(folders) + ([target] if folders else []):
        _sync(folder)
    return linked


def _take(source: str, path: str) -> bool:
    """Whether it could be linked: a side file never changes, so that one file under two names is as good as two."""
    try:
        os.link(source, path, follow_symlinks=False)
    except FileNotFoundError:
        raise errors.DamagedPayload(
            f"the side file {source} is gone, so there can be no whole copy; `dq doctor` says more"
        ) from None
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
    else:
        return True
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as new, open(source, "rb") as old:
        shutil.copyfileobj(old, new, _CHUNK)
        new.flush()
        os.fsync(new.fileno())
    return False


def _verify(path: str, file: Reference) -> None:
    size = checksum = 0
    with open(path, "rb") as data:
        while chunk := data.read(_CHUNK):
            size, checksum = size + len(chunk), crc32(chunk, checksum)
    if (size, checksum) != (file.size, file.crc):
        raise errors.DamagedPayload(f"the side file {file.name} does not match its record; `dq doctor` says more")


def _publish(folder: str, target: str, with_files: bool) -> None:
    """Gives the copy its names: the side files first, so that a database is never there without them."""
    made = os.path.join(folder, "copy.db")
    if with_files:
        os.close(os.open(os.path.join(folder, _NAMING), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _sync(folder)
        _rename(made + ".blobs", target + ".blobs")
        _sync(os.path.dirname(target))  # else a power cut could leave the later name without the earlier one
    _rename(made, target)
    _sync(os.path.dirname(target))


def _rename(old: str, new: str) -> None:
    """A rename that never replaces anything. Raises StoreError, OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EINVAL:  # a file system that does not know of it
        _require_free(new)
        os.rename(old, new)
    elif number == errno.EEXIST:
        _require_free(new)
    else:
        raise OSError(number, os.strerror(number), new)


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
