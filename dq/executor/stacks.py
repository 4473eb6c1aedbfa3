"""Stacks: where members leave the Python stack of a fatal signal, or of SIGUSR1, for the supervisor to read.

One sparse file beside the slots holds a region for each slot, so the last words outlive the process. The file is made
by the first member that needs it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from typing import BinaryIO

_REGION = 256 << 10  # bytes; sparse, so most of them are never stored

_file: BinaryIO | None = None  # faulthandler writes to its descriptor, so it stays open


def path_of(slots_path: str) -> str:
    """The stacks file that belongs to a slots file.

    >>> path_of("F.db.slots")
    'F.db.stacks'
    """
    return f"{slots_path.removesuffix('.slots')}.stacks"


def install(slots_path: str, slot: int) -> None:
    """Makes fatal signals and SIGUSR1 dump all threads into the slot's region. Raises OSError."""
    global _file
    fd = os.open(path_of(slots_path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _file = open(fd, "r+b", buffering=0)  # noqa: SIM115 -- open as long as the process
    old = _text(fd, slot)
    if old:
        os.pwrite(fd, bytes(len(old)), slot * _REGION)
    os.lseek(fd, slot * _REGION, os.SEEK_SET)
    faulthandler.enable(_file, all_threads=True)
    faulthandler.register(signal.SIGUSR1, _file, all_threads=True, chain=False)


def read(slots_path: str, slot: int) -> str:
    """What the owner of a slot has dumped, "" if nothing."""
    try:
        fd = os.open(path_of(slots_path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    try:
        return _text(fd, slot).decode("utf-8", "replace")
    finally:
        os.close(fd)


def _text(fd: int, slot: int) -> bytes:
    return os.pread(fd, _REGION, slot * _REGION).partition(b"\0")[0]
