"""How much memory processes take."""

from __future__ import annotations

import os
from pathlib import Path

import dq

MIB = 1 << 20


def rss(pid: int) -> int:
    """Bytes that are resident now."""
    return _line(pid, "VmRSS")


def peak(pid: int) -> int:
    """The most bytes that were ever resident, or since `reset`."""
    return _line(pid, "VmHWM")


def reset() -> int:
    """From now on this process's own `peak` is counted; returns what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return rss(os.getpid())


def peaks(engine: dq.Engine) -> dict[str, int]:
    """The highest peak of each kind of process that works for an engine."""
    found: dict[str, int] = {}
    for row in engine.census().rows:
        found[row.kind] = max(found.get(row.kind, 0), peak(row.pid))
    return found


def _line(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")
