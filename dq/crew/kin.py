"""The descendants of a process, whatever session or group they have made themselves.

A step may start processes that leave its worker's group (`setsid`, `Popen(start_new_session=True)`). As long as whoever
started them lives, the kernel knows whose they are; once that one is dead, they are nobody's. So they are looked for
before a kill, and stopped meanwhile, since one that runs could start another.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PASSES = 8  # looks until nothing new is found; whoever forks faster than that is in a group that is killed as one


@contextmanager
def kin(pid: int) -> Iterator[list[int]]:
    """Descriptors of all descendants of a process, which are stopped; they are closed at the end of the block.

    Example:
        with kin(worker) as found:
            os.killpg(worker, signal.SIGKILL)
    """
    found: dict[int, int] = {}
    try:
        for _ in range(PASSES):
            if not _look(pid, found):
                break
        yield list(found.values())
    finally:
        for fd in found.values():
            os.close(fd)


def _look(pid: int, found: dict[int, int]) -> bool:
    """Stops descendants that were not known yet; whether there were any."""
    fresh = False
    for parent in (pid, *found):
        for child in _children(parent):
            if child in found:
                continue
            with suppress(OSError):  # it is gone
                fd = os.pidfd_open(child)
                if _parent(child) != parent:
                    os.close(fd)  # the number is another process's by now
                    continue
                found[child], fresh = fd, True
                signal.pidfd_send_signal(fd, signal.SIGSTOP)
    return fresh


def _children(pid: int) -> list[int]:
    """The children of all threads of a process."""
    children: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children += map(int, file.read().split())
    return children


def _parent(pid: int) -> int:
    """A process's parent, 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
