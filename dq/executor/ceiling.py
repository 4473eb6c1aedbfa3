"""A ceiling over a body: it may have so much memory besides what its process has already."""

from __future__ import annotations

import errno
import os
import resource
from types import TracebackType
from typing import Self

from dq.errors import MemoryExceeded

_PAGE = os.sysconf("SC_PAGE_SIZE")


def size() -> int:
    """The address space of this process, in bytes: what RLIMIT_AS counts."""
    return _sizes()[0] * _PAGE


def resident() -> int:
    """Bytes that this process has in memory."""
    return _sizes()[1] * _PAGE


def _sizes() -> list[int]:
    with open("/proc/self/statm", "rb") as file:
        return [int(word) for word in file.read().split()]


class Ceiling:
    """Makes an allocation fail that would lead above the limit, and tells so.

    The kernel holds the whole process to it, so one body at a time may have one. What the body starts inherits it.

    Example:
        with Ceiling(64 << 20):
            bytearray(1 << 30)      # raises MemoryExceeded
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.start = 0  # the size of the process before the body
        self.resident = 0  # what it had in memory then
        self.reached = False

    def __enter__(self) -> Self:
        self._before = resource.getrlimit(resource.RLIMIT_AS)
        self.start, self.resident = size(), resident()
        bounds = [self.start + self.limit, *(bound for bound in self._before if bound != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_AS, (min(bounds), self._before[1]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self._before)  # first of all: what follows takes memory itself
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            self.reached = True
            raise MemoryExceeded(
                f"the step wanted more than the {self.limit / (1 << 20):g} MiB that it may have besides what its process had "
                f"({self.start >> 20} MiB of address space). If it needs more, raise its limit: memory={2 * self.limit} (bytes)"
            ) from error
