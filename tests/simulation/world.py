"""One simulated history: the real supervisor on a real file, everybody else played, all by one number.

The supervisor, its scheduler, reaper, timers and store are the ones that ship. Clock, processes and the pace of every
pipe are the world's. A death of the supervisor is an exception at a boundary of its commits or syncs; a power cut takes
away what the log has got since its last sync.
"""

from __future__ import annotations

import os
import random
import socket
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any
from unittest import mock

from dq.crew.door import Door
from dq.crew.options import Options
from dq.crew.recovery import recover
from dq.crew.supervisor import Supervisor
from dq.executor import options
from dq.executor.contract import Capability
from dq.executor.frames import Context, Define, Fork
from dq.executor.slots import SlotReader, open_slots
from dq.flow.queue import Queue
from dq.store.store import Store
from tests.process.crews import rows
from tests.simulation.clients import STEPS, Client
from tests.simulation.hosts import Host
from tests.simulation.judge import Judge
from tests.simulation.machine import Clock, Epoll, Machine
from tests.simulation.workers import Worker

ABLE = Capability.KILL | Capability.HARD_TIMEOUT | Capability.MEMORY_LIMIT
WORKERS, ACTS, DRAIN = 3, 250, 6000
SYNC_COST = 0.0001  # seconds, whatever it takes: measured time must not decide anything


class SupervisorKilled(BaseException):
    """The supervisor is gone from here on; nothing of it outlives this."""


class World:
    """See the module."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.folder = number, folder
        self.chance = random.Random(number)
        self.digest, self.lines, self.keep = blake2b(digest_size=16), list[str](), False
        self.sometimes: Counter[str] = Counter()
        self.clock = Clock()
        self.machine = Machine(self.chance, self.clock, self.trace)
        self.machine.bear = self._bear
        self.judge = Judge(self)
        self.db = folder / "f.db"
        self.address = str(folder / "f.sock")
        self.memory = open_slots(f"{self.db}.slots", create=True)
        self.context = Context("", "", "/", (), "")
        self.limits = {"m:narrow": 2}
        self.defines = {name: _define(name, "step") for name in STEPS} | {"m:flow": _define("m:flow", "workflow")}
        self.dues: dict[int, int] = {}
        self.awaited: list[str] = []
        self.clients = [Client(self, number) for number in range(1, 3)]
        self.boots = self.synced = 0
        self.machine_boot = 1
        self.doom = ""  # where the supervisor dies next
        self.draining = False
        self.abandoned = True
        self.boot()

    def trace(self, *what: Any) -> None:
        line = repr(what)
        self.digest.update(line.encode())
        if self.keep:
            self.lines.append(f"{self.clock.steady - 1000_000_000:>12} {line}")

    def rolls(self, chance: float) -> bool:
        return not self.draining and self.chance.random() < chance

    def named(self, number: int) -> str:
        return list(self.defines)[number - 1]

    def _bear(self, order: Fork, main: socket.socket, control: socket.socket) -> None:
        made = (Host if order.kind == "host" else Worker)(self, order, main, control)
        self.trace("born", made.kind, made.pid, order.slot)

    def boot(self) -> None:
        """A supervisor takes the file over, as `dq.crew.boot` does it."""
        self.boots += 1
        self.trace("boot", self.boots)
        self.store = Store.open(self.db, clock=self.clock)
        boot = self.store.boot(f"boot-{self.machine_boot}")
        self._hook()
        slots = SlotReader(self.memory)
        told = Options(str(self.db), WORKERS, {}, "fork", 3.0, 5.0)
        machine: Any = self.machine
        with mock.patch("dq.crew.poller.select.epoll", return_value=Epoll(self.chance)):
            self.supervisor = Supervisor(told, self.store, slots, self.clock, boot.epoch, machine, machine)
        self.supervisor.scheduler.add_pool("cpu", f"process:{WORKERS}", WORKERS, 1, ABLE)
        self.supervisor.scheduler.pools[""] = self.supervisor.scheduler.pools["cpu"]
        self.supervisor._expel = self._expelled  # type: ignore[method-assign]  # nobody here sends garbage
        self.rest: Callable[[], float | None] = self.supervisor._timeout
        self.supervisor._timeout = lambda: 0.0  # type: ignore[method-assign]
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.address)
        self.listener.listen(8)
        self.door: Door | None = None
        self.abandoned = False
        try:
            recover(self.supervisor, slots, boot)
            self.door = Door(self.supervisor, self.listener)
            self.supervisor.timers.at(self.clock.monotonic() + self.supervisor.watch.tick, self.supervisor._tick)
        except SupervisorKilled:
            self.sometimes["a successor died while it recovered"] += 1
            self.bury()

    def _expelled(self, member: Any, error: Exception) -> None:
        raise AssertionError(f"{member.kind} {member.pid} is expelled") from error

    def _hook(self) -> None:
        """Deaths and the judge at the boundaries of commits and syncs."""
        store, commit, sync = self.store, self.store.commit, self.store.sync

        def commits(group: Any) -> None:
            self._dies_at("before commit")
            self.judge.written(group)
            commit(group)
            self.judge.recorded.update(row[0] for row in group.results)
            self.trace("commit", len(group.steps), [row[:3] for row in group.results], len(group.claims))
            self._dies_at("after commit")

        def syncs() -> float:
            self._dies_at("before sync")
            sync()
            self.synced = os.stat(f"{self.db}-wal").st_size
            self.trace("sync")
            self._dies_at("after sync")
            return SYNC_COST

        store.commit, store.sync = commits, syncs  # type: ignore[method-assign]
        self.synced = os.stat(f"{self.db}-wal").st_size

    def _dies_at(self, place: str) -> None:
        if self.doom == place:
            self.doom = ""
            self.sometimes[f"the supervisor died {place}"] += 1
            self.trace("dies", place)
            raise SupervisorKilled(place)

    def turn(self) -> None:
        try:
            self.supervisor.turn()
        except SupervisorKilled:
            self.bury()

    def bury(self) -> None:
        """What follows from the supervisor's end: its members go on for a moment, then they are killed."""
        power = self.rolls(0.3)
        self.abandon()
        members = [one for one in self.machine.living() if one.alive]
        for member in [] if power else members:
            for _ in range(self.chance.randint(0, 3)):
                if member.alive and member.kind == "worker":
                    self.sometimes["a worker outlived its supervisor for a moment"] += member.acts()
        for member in members:
            member.dies()
        if power:
            self._power_cut()
        self.boot()

    def _power_cut(self) -> None:
        self.sometimes["a power cut"] += 1
        self.machine_boot += 1
        before = os.stat(f"{self.db}-wal").st_size
        self.sometimes["a power cut took something unsynced"] += before > self.synced
        os.truncate(f"{self.db}-wal", self.synced)
        (self.folder / "f.db-shm").unlink(missing_ok=True)
        self.judge.recorded = {row[0] for row in self.rows("SELECT step FROM dq_result")}

    def abandon(self) -> None:
        """Closes what the kernel would close."""
        if self.abandoned:
            return
        self.abandoned, sup = True, self.supervisor
        self.sometimes["a late result was refused and counted"] += sup.scheduler.stale
        self.listener.close()
        Path(self.address).unlink()
        peers = [peer for member in sup.staff.members for peer in (member.peer, member.control)]
        peers += [nursery.peer for nursery in sup.staff.nurseries if nursery.peer is not None]
        peers += [client.peer for client in sup.clients.all.values()]
        peers += [*sup.clients.leaving, *(self.door._strangers if self.door is not None else ())]
        for member in sup.staff.members:
            if member.pidfd >= 0:
                os.close(member.pidfd)
        for nursery in sup.staff.nurseries:
            if nursery.pidfd >= 0:
                os.close(nursery.pidfd)
        for peer in peers:
            peer.sock.close()
        os.close(sup.committer.wake_fd)
        sup.poller._epoll.close()
        self.store.close(clean=False)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return rows(self.db, statement)

    def close(self) -> None:
        self.abandon()
        for process in self.machine.processes.values():
            process.dies()
        for client in self.clients:
            client.leaves()


def _define(name: str, kind: Any) -> Define:
    queue = Queue("narrow", concurrency=2).pack() if name == "m:narrow" else b""
    packed = options.pack(options.Options(queue=queue))
    return Define(0, name, kind, name.encode().ljust(16, b"-")[:16], b"code", "", 3, packed)
