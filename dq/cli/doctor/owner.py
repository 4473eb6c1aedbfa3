"""Who works on the database: the lock, its owner, the socket."""

from __future__ import annotations

import itertools
import os
import shlex
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dq.cli.doctor.finding import ERROR, NOTE, WARNING, Finding
from dq.client.glance import glance
from dq.client.sock import SUFFIX, dial
from dq.crew.ownership import started
from dq.errors import StoreError

PATIENCE = 5.0  # seconds for an answer of the supervisor; it answers between two commits


class Owner(NamedTuple):
    """The supervisor that holds the lock; pid 0: there is none."""

    pid: int
    executors: tuple[str, ...]  # the names it was started with, besides its own


NOBODY = Owner(0, ())


def find(db: str) -> Owner:
    """Who holds the lock, without touching it: a supervisor that starts just now must not find it taken."""
    pids = holders(db + ".lock", "WRITE")
    return Owner(pids[0], _executors(pids[0])) if pids else NOBODY


def holders(path: str, mode: str) -> list[int]:
    """Pids of those who hold a flock of that mode, "READ" or "WRITE", on a file."""
    try:
        found = os.stat(path)
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    fields = [line.split() for line in lines]
    return [int(row[4]) for row in fields if row[1] == "FLOCK" and row[3] == mode and row[5] == place]


def _executors(pid: int) -> tuple[str, ...]:
    """The executors that a supervisor was told of on its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return ()
    return tuple(word.partition("=")[0] for option, word in itertools.pairwise(words) if option == "--executor")


def check(db: str, owner: Owner) -> Iterator[Finding]:
    yield from _lock(db, owner)
    yield from _socket(db, owner)
    copying = holders(db + ".blobs", "READ")
    if copying:
        yield Finding(
            NOTE, "backup", f"process {copying[0]} makes a copy", "no side file is deleted meanwhile",
            f"nothing; should it hang, `kill {copying[0]}`",
        )  # fmt: skip


def _lock(db: str, owner: Owner) -> Iterator[Finding]:
    if owner.pid and not started(owner.pid):
        yield Finding(
            WARNING, "owner", f"the lock is held by process {owner.pid}, which can't be seen from here",
            "it may live in another container; only one machine may have the file", "look for it where it runs",
        )  # fmt: skip
    elif owner.pid and _state(owner.pid) in "Tt":
        yield Finding(
            ERROR, "owner", f"the supervisor (pid {owner.pid}) is stopped", "nothing goes on, and nobody else can take over",
            f"kill -CONT {owner.pid}; or `kill -9 {owner.pid}`, and `dq up --db {shlex.quote(db)}` goes on",
        )  # fmt: skip


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "?"


def _socket(db: str, owner: Owner) -> Iterator[Finding]:
    path = db + SUFFIX
    there = os.path.lexists(path) and stat.S_ISSOCK(os.lstat(path).st_mode)
    try:
        sock = dial(db) if there else None
    except StoreError as error:
        yield Finding(ERROR, "socket", str(error), "clients can't reach their supervisor", "remove it, as its owner")
        return
    if sock is not None and _state(owner.pid) in "Tt":
        sock.close()
    elif sock is not None:
        yield from _at_work(db, owner, sock)
    elif owner.pid:
        yield Finding(
            ERROR, "socket", f"the supervisor (pid {owner.pid}) works, and {path} leads nowhere",
            "clients can't reach it", f"`kill {owner.pid}` (it drains first), then start it again",
        )  # fmt: skip
    elif there:
        yield Finding(
            NOTE, "socket", f"{path} is a dead supervisor's", "it says that the last one was killed; that is all",
            f"nothing: the next one replaces it (`dq up --db {shlex.quote(db)}`)",
        )  # fmt: skip


def _at_work(db: str, owner: Owner, sock: socket.socket) -> Iterator[Finding]:
    """What the supervisor itself says."""
    try:
        crew = glance(sock, PATIENCE)
    except TimeoutError:
        yield Finding(
            WARNING, "owner", f"the supervisor (pid {owner.pid}) has not answered for {PATIENCE:g} s",
            "it waits for the disk, or is very busy; nobody is told of anything meanwhile",
            f"look at the room and the disk, and at `cat /proc/{owner.pid}/wchan`; should it stay so, `kill -9 {owner.pid}`, and "
            f"`dq up --db {shlex.quote(db)}` goes on",
        )  # fmt: skip
        return
    if crew is not None and crew.stale:
        yield Finding(
            NOTE, "late results", f"{crew.stale} results have come too late since the supervisor (pid {owner.pid}) began, and "
            "were refused", "their steps had been given to others, or were over; nothing of them counts, and each step has one result",
            "nothing; where the number grows, workers are held to be hung too soon (`dq up --hang SECONDS`)",
        )  # fmt: skip
