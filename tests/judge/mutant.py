"""A supervisor that lacks one of its guards: `python -m tests.judge.mutant LACKS NEMESES -- words of dq.crew`.

What it lacks is one of MUTATIONS, or "nothing". A nemesis, one of NEMESES or several with commas between, is a misfortune
that a sound supervisor bears: it is there with and without the guard. All of it is put in from outside, in this process.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from dq.crew import boot as crew
from dq.crew import limits
from dq.crew.committer import Committer, _send
from dq.crew.evidence import Death
from dq.crew.limits import Limits
from dq.crew.members import WORKER, Member
from dq.crew.peer import Peer
from dq.crew.poller import Poller
from dq.crew.reaper import autopsy
from dq.crew.results import _STATES, Results
from dq.crew.supervisor import Supervisor
from dq.executor import frames
from dq.executor.slots import BEGUN
from dq.store.group import Group
from dq.store.sql import SQL
from dq.store.store import Store
from dq.store.sync import Wal

DISK_MAX = 60.0  # seconds that a slow disk takes, should the test forget it


def results_of_any_claim() -> None:
    """A result counts, whether its claim is open or not."""
    sound = Results.take

    def take(self: Results, member: Member, message: frames.Results) -> None:
        if message.epoch in member.claims:
            sound(self, member, message)
            return
        group = self._committer.group
        for id, status, payload, began, busy in message.rows:
            ended = began + busy // 1000
            group.results.append((id, None, _STATES[status], 1, message.epoch, member.pid, began, ended, payload))
        self._committer.dirty = self._committer.eager = True

    Results.take = take  # type: ignore[method-assign]
    Store._check_epochs = lambda self, db, group: None  # type: ignore[method-assign]


def writes_of_any_boot() -> None:
    """A supervisor that has been succeeded writes on."""
    sound = Store._write

    def write(self: Store, db: apsw.Connection, group: Group) -> int:
        before = db.total_changes()
        sound(self, db, group)
        return db.total_changes() - before

    Store._write = write  # type: ignore[method-assign]
    SQL["fence"] = "SELECT 1 WHERE ?1 IS NOT NULL"


def no_sync() -> None:
    """Nothing is ever synced."""
    Store.sync = lambda self: 0.0  # type: ignore[method-assign]


def answers_before_the_sync() -> None:
    """People are told first."""
    sound = Committer._sync

    def sync(self: Committer) -> None:
        _send(self._waiting)
        sound(self)

    Committer._sync = sync  # type: ignore[method-assign]


def reschedules_the_living() -> None:
    """What a hung worker holds goes to others while it lives."""

    def end_hung(self: Limits, member: Member, why: str) -> None:
        member.why = why
        self._sup._lost(member, Death(-1, 0))

    Limits.end_hung = end_hung  # type: ignore[method-assign]


def frees_what_it_has_not_read() -> None:
    """What a dead worker held is freed before what it had sent is read."""
    Peer.drain = lambda self: []  # type: ignore[method-assign]


def deaths_come_first() -> None:
    """The kernel tells of deaths before it tells of what the dead have sent."""

    def poll(self: Poller, timeout: float | None) -> bool:
        events = self._epoll.poll(timeout)
        for fd, mask in sorted(events, key=lambda event: not _is_death(event[0])):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(mask)
        return bool(events)

    Poller.poll = poll  # type: ignore[method-assign]


def _is_death(fd: int) -> bool:
    try:
        return "pidfd" in os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False


def false_alarm() -> None:
    """Once the file `F.db.alarm` is there, a living worker is taken for dead; a sound supervisor rejects what it sends then."""
    sound = Supervisor._tick

    def tick(self: Supervisor) -> None:
        alarm = Path(f"{self.options.db}.alarm")
        if alarm.exists():
            alarm.unlink()
            for member in [member for member in self.staff.members if member.claims]:
                member.stopping = True  # it gets nothing more
                self.results.bereave(member, autopsy(member, self.slots), Death(-1, 0))
        sound(self)

    Supervisor._tick = tick  # type: ignore[method-assign]


def hasty() -> None:
    """Now and then a worker that is alive, and in a body, is held to be hung. Each time is a byte in `F.db.alarms`.

    That goes on until `F.db.calm` is there. What the worker finishes before it is killed is on its way, or arrives.
    """
    sound, chance = Supervisor._tick, random.Random(7)
    limits.DUMP_WAIT = 0.002

    def tick(self: Supervisor) -> None:
        self.watch.tick = 0.005
        for member in [m for m in self.staff.members if m.kind == WORKER and m.ready and not m.why]:
            begun = any(entry.mark == BEGUN for entry in self.slots.entries(member.slot))
            if begun and chance.random() < 0.5 and not os.path.exists(f"{self.options.db}.calm"):
                with open(f"{self.options.db}.alarms", "ab") as alarms:
                    alarms.write(b"!")
                self.limits.end_hung(member, "a false alarm")
        sound(self)

    Supervisor._tick = tick  # type: ignore[method-assign]


def power() -> None:
    """What was synced last is kept in `F.db.durable`, and while `F.db.slow` is there a sync does not end (`F.db.waits`)."""
    sound = Wal.sync

    def sync(self: Wal) -> float:
        path = self._path
        durable = Path(f"{path}.durable")
        durable.mkdir(exist_ok=True)
        copies = [
            Path(shutil.copy2(name, durable / f"{Path(name).name}.new"))
            for name in (path, f"{path}-wal")
            if os.path.exists(name)
        ]
        until = time.monotonic() + DISK_MAX
        while os.path.exists(f"{path}.slow") and time.monotonic() < until:
            Path(f"{path}.waits").touch()
            time.sleep(0.002)
        seconds = sound(self)
        for copy in copies:
            copy.rename(copy.with_suffix(""))
        return seconds

    Wal.sync = sync  # type: ignore[method-assign]
    Supervisor._pregrow = lambda self: None  # type: ignore[method-assign]  # it would be the one that does not end


MUTATIONS: dict[str, Callable[[], Any]] = {
    made.__name__: made
    for made in (
        results_of_any_claim, writes_of_any_boot, no_sync, answers_before_the_sync, reschedules_the_living,
        frees_what_it_has_not_read,
    )
}  # fmt: skip
NEMESES: dict[str, Callable[[], Any]] = {made.__name__: made for made in (deaths_come_first, false_alarm, hasty, power)}


if __name__ == "__main__":
    lacks, nemeses, _, *words = sys.argv[1:]
    for name in filter(None, nemeses.split(",")):
        NEMESES[name]()
    if lacks != "nothing":
        MUTATIONS[lacks]()
    code = crew.main(words)
    os._exit(code)
