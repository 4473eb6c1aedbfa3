"""Who is at work on a database, seen from outside: by the lock file, the slots file and the process table.

Nobody is asked, so a supervisor that is just starting, or that is stopped, hides nobody.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dq.executor.slots import BEGUN, HOST, SLOTS, WORKER, Identity, SlotReader, open_slots

_KINDS = {WORKER: "worker", HOST: "host"}


class Person(NamedTuple):
    """A process of the crew. `slot` is -1 where it has none."""

    kind: str
    pid: int
    started: int  # tells a reused pid from the process meant
    slot: int


class Crowd:
    """The processes of one database.

    Attributes:
        known: All that were ever seen, as (pid, started).
    """

    def __init__(self, db: str) -> None:
        self._db = os.path.realpath(db)
        self._reader: SlotReader | None = None
        self._memory: mmap.mmap | None = None
        self.known: dict[tuple[int, int], str] = {}

    def everybody(self) -> list[Person]:
        """Who is there now, in a fixed order: supervisor, templates, members by slot."""
        people = self._supervisor()
        if people:
            people += self._templates(people[0].pid)
        people += self._members()
        self.known.update({(one.pid, one.started): one.kind for one in people})
        return people

    def busy(self, person: Person) -> list[tuple[int, int]]:
        """What a member has begun and not ended: (step, epoch), for a host (run, 0). Stop it first to be certain."""
        slots = self._slots()
        if slots is None or person.slot < 0 or not _is(slots.identity(person.slot), person):
            return []
        return [(entry.id, entry.epoch) for entry in slots.entries(person.slot) if entry.mark == BEGUN]

    def left(self) -> list[tuple[str, int]]:
        """(kind, pid) of all that are still alive: those that were seen, and whoever has one of the lock files open."""
        found = {pid: kind for (pid, started), kind in self.known.items() if started_at(pid) == started}
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in found and self._holds(int(name), ".crew", ".lock"):
                found[int(name)] = "stranger"
        found.pop(os.getpid(), None)
        return sorted((kind, pid) for pid, kind in found.items())

    def _supervisor(self) -> list[Person]:
        try:
            word = Path(f"{self._db}.lock").read_text().partition(" ")[0]
        except (OSError, UnicodeDecodeError):
            return []
        pid = int(word) if word.isdigit() else 0
        started = started_at(pid)
        if not started or not self._holds(pid, ".lock"):
            return []
        return [Person("supervisor", pid, started, -1)]

    def _templates(self, supervisor: int) -> list[Person]:
        """Children of the supervisor that are in its process group: members lead one of their own."""
        found: list[Person] = []
        for pid in _children(supervisor):
            with contextlib.suppress(OSError):
                started = started_at(pid)
                if (
                    started
                    and os.getpgid(pid) != pid
                    and b"dq.crew.template" in Path(f"/proc/{pid}/cmdline").read_bytes()
                ):
                    found.append(Person("template", pid, started, -1))
        return found

    def _members(self) -> list[Person]:
        slots = self._slots()
        if slots is None:
            return []
        owners = ((slot, slots.identity(slot)) for slot in range(SLOTS))
        people = [Person(_KINDS.get(one.kind, "worker"), one.pid, one.started, slot) for slot, one in owners if one.pid]
        return [one for one in people if started_at(one.pid) == one.started]

    def _slots(self) -> SlotReader | None:
        if self._reader is None:
            try:
                self._memory = open_slots(f"{self._db}.slots")
            except (OSError, ValueError):  # it is being made
                return None
            self._reader = SlotReader(self._memory)
        return self._reader

    def _holds(self, pid: int, *suffixes: str) -> bool:
        wanted = {self._db + suffix for suffix in suffixes}
        return any(link in wanted for link in _links(pid))

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()


def _is(identity: Identity, person: Person) -> bool:
    return (identity.pid, identity.started) == (person.pid, person.started)


def lives(person: Person) -> bool:
    """Whether it is still there, and no other process has its pid."""
    return started_at(person.pid) == person.started


def started_at(pid: int) -> int:
    """When a process was started, in ticks since the machine's boot; 0 if there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        import psutil

        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except psutil.Error:
            return []


def _links(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            yield os.readlink(f"{folder}/{name}")
