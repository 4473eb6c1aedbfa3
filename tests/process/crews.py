"""Supervisors that tests start by hand, and what they look at from outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import connect
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def supervisor(db: Path, *words: str, out: int | None = None) -> subprocess.Popen[bytes]:
    """Starts `python -m dq.crew` and returns when it listens. `out`: where it and its steps write all that they write."""
    ours, theirs = os.pipe()
    command = [sys.executable, "-P", "-m", "dq.crew", "--db", str(db), "--ready-fd", str(theirs), *words]
    with open(f"{db}.err", "ab") as errors:
        process = subprocess.Popen(
            command, pass_fds=[theirs], start_new_session=True, stdout=out, stderr=errors if out is None else out
        )
    os.close(theirs)
    with open(ours) as pipe:
        told = json.loads(pipe.readline())
    assert told["error"] is None, told
    return process


@contextmanager
def serving(db: Path, *words: str, out: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor for the time of a block; killed at its end if it lives."""
    process = supervisor(db, *words, out=out)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


def rows(db: str | Path, statement: str) -> list[tuple[Any, ...]]:
    """What the standard library's sqlite3 reads in the file."""
    with closing(connect(f"file:{db}?mode=ro", uri=True)) as file:
        return file.execute(statement).fetchall()


def state(pid: int) -> str:
    """A process's state as the kernel has it, "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def members(db: Path) -> list[int]:
    """Every process but this one that has the crew or lock file of the database open."""
    pids = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    return [int(pid) for pid in pids if _holds(pid, db)]


def _holds(pid: str, db: Path) -> bool:
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any(link in (f"{db}.crew", f"{db}.lock") for link in links)


def said(db: Path, text: str) -> bool:
    """Whether supervisors of the file have said so on their standard error stream."""
    return text in Path(f"{db}.err").read_text()


def dial(db: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(f"{db}.sock")
    return sock
