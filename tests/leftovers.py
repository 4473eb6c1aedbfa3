"""Finds what tests leave behind: processes and files.

A process belongs to this pytest process if it was started with its mark in the environment, if its command line or
working folder lies under its temporary folder, or if it is its child. So runs beside each other, xdist's workers
included, never see each other's processes.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

MARK = "DQ_TEST_RUN"
_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")  # they end with their parent
_CACHES = frozenset({".cache", ".git", ".venv", "__pycache__"})
_SOURCES = frozenset({".py", ".md", ".sql", ".toml", ".json", ".typed"})  # an author may save a file while tests run


class Process(NamedTuple):
    pid: int
    started: int  # field 22 of /proc/PID/stat: tells a reused pid from the process meant
    parent: int
    state: str
    command: str


def mark() -> str:
    """Marks this process's environment, and so those of all that it starts. Returns the mark."""
    me = _look(os.getpid())
    assert me is not None
    value = f"{me.pid}-{me.started}"
    os.environ[MARK] = value
    return value


def processes(value: str, folder: Path) -> dict[int, Process]:
    """The live processes, and unreaped children, that belong to the mark or work under the folder."""
    found: dict[int, Process] = {}
    needle, under = f"{MARK}={value}\0".encode(), os.fsencode(folder)
    born = int(value.rpartition("-")[2])
    me = os.getpid()
    for name in os.listdir("/proc"):
        process = _look(int(name)) if name.isdigit() and int(name) != me else None
        if process is not None and process.started >= born and _belongs(process, needle, under, me):
            command = _read(process.pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
            found[process.pid] = process._replace(command=command)
    return found


def strangers(before: dict[int, Process], now: dict[int, Process]) -> list[Process]:
    """Those that are new, and that no process from before has started."""

    def inherited(process: Process) -> bool:
        parent = now.get(process.parent)
        return parent is not None and (known(parent) or inherited(parent))

    def known(process: Process) -> bool:
        old = before.get(process.pid)
        return old is not None and old.started == process.started

    return [process for process in now.values() if not known(process) and not inherited(process)]


def kill(leftovers: list[Process]) -> None:
    """Ends what is left, so that it does not disturb the tests that follow."""
    for process in leftovers:
        now = _look(process.pid)
        if now is not None and now.started == process.started:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def files(root: Path) -> set[str]:
    """What lies in the project's folder, apart from caches and sources."""
    found: set[str] = set()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _CACHES]
        found.update(os.path.join(folder, name) for name in names if Path(name).suffix not in _SOURCES)
    return found


def _belongs(process: Process, needle: bytes, under: bytes, me: int) -> bool:
    command = _read(process.pid, "cmdline")
    if any(helper in command for helper in _HELPERS):
        return False
    if process.parent == me:
        return True
    if process.state in "ZX":
        return False  # whoever should reap it is alive, and listed where it is ours
    if under in command or needle in _read(process.pid, "environ"):
        return True
    try:
        return os.fsencode(os.readlink(f"/proc/{process.pid}/cwd")).startswith(under)
    except OSError:
        return False


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _look(pid: int) -> Process | None:
    text = _read(pid, "stat").decode(errors="replace")
    if not text:
        return None
    state, parent, *rest = text[text.rindex(")") + 2 :].split()
    return Process(pid, int(rest[17]), int(parent), state, "")
