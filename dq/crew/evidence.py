"""What is known of a death: how it ended, what memory it had, where it stood, and whether the machine ran out of memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

from dq.executor import stacks

_CURRENT = "Current thread "
_ENVELOPE = "/dq/executor/envelope.py"  # what has called the user's code
STACK_MAX = 4000  # characters of the last stack


class Death(NamedTuple):
    """How a member ended: wait status (-1: somebody else took it) and peak of resident memory in KiB.

    `stack` is what it left when a signal ended it, `out_of_memory` whether the kernel has killed anybody since the last
    death for want of memory.
    """

    status: int
    rss: int
    stack: str = ""
    out_of_memory: bool = False

    def __str__(self) -> str:
        if self.status < 0:
            return "ended, with its exit status unknown"
        code = os.waitstatus_to_exitcode(self.status)
        told = f"exited with code {code}" if code >= 0 else f"was ended by {_signal(-code)}"
        told += f", peak memory {self.rss // 1024} MiB"
        if self.out_of_memory and code == -signal.SIGKILL:
            told += "; the kernel killed for want of memory"
        return f"{told}; its last stack:\n{self.stack}" if self.stack else told


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_stack(slots_path: str, slot: int) -> str:
    """What the slot's owner has dumped last, "" if nothing. To be read before the slot has another owner."""
    try:
        text = stacks.read(slots_path, slot).strip()
    except OSError:
        return ""
    # The thread that counts is dumped after the others, and they must not push it out.
    at = max(text.rfind(_CURRENT), 0)
    return f"{text[at:]}\n\n{text[:at]}".strip()[:STACK_MAX]


def innermost(stack: str) -> str:
    """Of a stack, the user's own frames in the thread that was at work."""
    lines = stack.split("\n\n", maxsplit=1)[0].splitlines()
    own = next((place for place, line in enumerate(lines) if _ENVELOPE in line), len(lines))
    return "\n".join(lines[1:own])


class MemoryKills:
    """Tells whether the kernel's out-of-memory killer was at work, in this machine or this container."""

    _PLACES = ("/proc/vmstat", "/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")

    def __init__(self) -> None:
        self._seen = self._count()

    def since_last(self) -> bool:
        """Whether it has killed anybody since the last time that this was asked."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    def _count(self) -> int:
        return sum(map(_kills, self._PLACES))


def _kills(place: str) -> int:
    try:
        lines = Path(place).read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
