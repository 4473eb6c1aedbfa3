"""The slots: a file-backed memory that workers and hosts write and only the supervisor reads.

It outlives both, so after any death it tells what its owner had begun, and what it had finished but not yet sent.
One slot:

    0    boot_epoch   8   pid   16   start ticks   24   nonce (16 bytes)
    40   kind         48  beat (raised twice a second)   56   finished (count of bodies)
    64   step whose body has a time limit, or 0   72   when that body began (nanoseconds of the monotonic clock)
    128  ENTRIES entries of 24 bytes: id, epoch, mark; mark is FREE, BEGUN or UNSENT and written last
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

SLOTS = 256
ENTRIES = 512
_HEAD = struct.Struct("<QQQ16sQQQ")
_ENTRY = struct.Struct("<QQQ")
_WORD = struct.Struct("<Q")
_TIMED_AT, _ENTRIES_AT = 64, 128
SLOT_SIZE = 16384
_BEAT_AT = 48
_TIMED_WORD, _SINCE_WORD = 8, 9
_TIMED = struct.Struct("<QQ")
_BEAT_WORD, _FINISHED_WORD, _FIRST_WORD, _MARK_WORD = 6, 7, _ENTRIES_AT // 8, _ENTRIES_AT // 8 + 2
assert _ENTRIES_AT + ENTRIES * _ENTRY.size <= SLOT_SIZE

FREE, BEGUN, UNSENT = range(3)
WORKER, HOST = 1, 2


class Identity(NamedTuple):
    """Who owns a slot. pid 0: nobody."""

    boot_epoch: int
    pid: int
    started: int  # field 22 of /proc/PID/stat: tells a reused pid from the process meant
    nonce: bytes
    kind: int
    beat: int
    finished: int


class Entry(NamedTuple):
    """One body that a worker began, or one run that a host is running (then `epoch` is 0)."""

    id: int
    epoch: int
    mark: int


def open_slots(path: str, *, create: bool = False) -> mmap.mmap:
    """Maps the slots file, made with mode 0600. Raises OSError."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    fd = os.open(path, flags, 0o600)
    try:
        if create:
            # With holes in it, a full disk would show as a SIGBUS in whoever writes to the memory first.
            os.posix_fallocate(fd, 0, SLOTS * SLOT_SIZE)
        return mmap.mmap(fd, SLOTS * SLOT_SIZE)
    finally:
        os.close(fd)


class SlotReader:
    """The supervisor's view of all slots."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    def identity(self, slot: int) -> Identity:
        return Identity(*_HEAD.unpack_from(self._memory, slot * SLOT_SIZE))

    def beat(self, slot: int) -> int:
        return int(_WORD.unpack_from(self._memory, slot * SLOT_SIZE + _BEAT_AT)[0])

    def timed(self, slot: int) -> tuple[int, int]:
        """The step whose body has a time limit, 0 for none, and when that body began; the same clock for all processes."""
        at = slot * SLOT_SIZE + 8 * _TIMED_WORD
        step, since = _TIMED.unpack_from(self._memory, at)
        again, _ = _TIMED.unpack_from(self._memory, at)
        return (step, since) if again == step else (0, 0)  # else it was written meanwhile

    def entries(self, slot: int) -> list[Entry]:
        """What the slot's owner has begun or not yet sent."""
        start = slot * SLOT_SIZE + _ENTRIES_AT
        view = memoryview(self._memory)[start : start + ENTRIES * _ENTRY.size]
        try:
            # An id of 0 is an entry whose owner was killed while it freed it.
            return [Entry(*row) for row in _ENTRY.iter_unpack(view) if row[2] != FREE and row[0] != 0]
        finally:
            view.release()

    def clear(self, slot: int) -> None:
        """Frees a slot whose owner is dead and whose evidence is on disk."""
        at = slot * SLOT_SIZE
        self._memory[at : at + SLOT_SIZE] = bytes(SLOT_SIZE)


class SlotWriter:
    """A worker's or host's own slot. `begin`, `finish` and `free` cost a tenth of a microsecond each.

    They write aligned words, each in one store, so a kill between two of them leaves no half number behind.
    """

    def __init__(self, memory: mmap.mmap, slot: int) -> None:
        self._memory = memory
        self._at = slot * SLOT_SIZE
        self._words = memoryview(memory)[self._at : self._at + SLOT_SIZE].cast("Q")
        self._beat = 0
        self._finished = 0

    def own(self, boot_epoch: int, pid: int, started: int, nonce: bytes, kind: int) -> None:
        """Signs the slot, before the first claim. What is left of another owner, of another boot perhaps, is wiped."""
        self._memory[self._at + _TIMED_AT : self._at + SLOT_SIZE] = bytes(SLOT_SIZE - _TIMED_AT)
        _HEAD.pack_into(self._memory, self._at, boot_epoch, pid, started, nonce, kind, 0, 0)

    def beat(self) -> None:
        self._beat += 1
        self._words[_BEAT_WORD] = self._beat

    def begin(self, index: int, id: int, epoch: int) -> None:
        """Entry `index` must be free: a kill in the middle leaves its mark at FREE."""
        words, at = self._words, _FIRST_WORD + 3 * index
        words[at] = id
        words[at + 1] = epoch
        words[at + 2] = BEGUN

    def time(self, step: int, since: int) -> None:
        """A body with a time limit begins; step 0: it has ended."""
        words = self._words
        words[_TIMED_WORD] = 0
        words[_SINCE_WORD] = since
        words[_TIMED_WORD] = step

    def finish(self, index: int) -> None:
        self._words[_MARK_WORD + 3 * index] = UNSENT
        self._finished += 1
        self._words[_FINISHED_WORD] = self._finished

    def free(self, first: int, count: int = 1) -> None:
        """Frees entries whose results are sent."""
        at = self._at + _ENTRIES_AT + first * _ENTRY.size
        self._memory[at : at + count * _ENTRY.size] = bytes(count * _ENTRY.size)
