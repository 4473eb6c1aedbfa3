"""A real supervisor on the recording disk, whose client, workers and host are played by lot.

What is promised is what a client or a host was told, taken down at the moment at which it could be read from its socket.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dq.crew.committer import _SyncThread
from dq.crew.ledger import Run
from dq.errors import StoreError
from dq.executor.frames import (
    Acked,
    Adopt,
    Claim,
    Deliver,
    Ended,
    Finish,
    Lease,
    Leased,
    Results,
    Signal,
    Start,
    Submit,
    Watch,
)
from dq.model.states import COMPLETED, STATUS
from dq.store.store import Store
from tests.power.disk import Disk, Fault
from tests.power.verdict import Promise, Rows, read
from tests.unit.crewroom import Guest, Hand, Room, open_room
from tests.unit.hostroom import Clock, Lodge


class Ticks(Clock):
    """A clock whose monotonic side goes on by lot, so that the committer's decisions depend on nothing else."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._passed = 0.0

    def monotonic(self) -> float:
        self._passed += self._chance.choice((0.0001, 0.001, 0.003))
        return self._passed


class Shift(Lodge):
    """See the module.

    Attributes:
        promises: What was told, at each mark of the disk's record.
        asked: Rows that were to be written.
    """

    def __init__(self, room: Room, disk: Disk, chance: random.Random, *, slow: bool) -> None:
        self.disk = disk
        self.chance = chance
        self.slow = slow
        self.promise = Promise()
        self.promises = [self.promise.copy()]
        self.asked: Rows = {}
        self.claims: list[tuple[Hand, Claim]] = []
        self.submitted: list[Rows] = []  # what each frame that is not acknowledged yet has asked for
        self.open_runs: list[Run] = []
        self._began = threading.Event()
        self._go_on = threading.Event()
        super().__init__(room, Clock())
        sync = self.supervisor.committer
        sync.overlaps = lambda: self.slow
        sync._cost = 1.0 if slow else 0.0
        sync._done = self._synced  # type: ignore[method-assign]
        sync._thread.start = self._start  # type: ignore[method-assign]
        sync.wait = self._make_room
        self.function = room.function()
        self.workers = [Hand(room, self.function, number) for number in (100, 101)]
        self.guest.client.functions[self.function.id] = self.function
        self.free: list[int] = []
        self.promise.epoch = self.supervisor.ledger.boot_epoch
        self.promise.salt = self.supervisor.ledger.salt
        self.mark()
        disk.before = self.listen
        disk.during_sync = self._under_way

    # What is told.

    def mark(self) -> None:
        self.promises.append(self.promise.copy())
        self.disk.mark(len(self.promises) - 1)

    def listen(self) -> None:
        """Takes down what has been told by now."""
        told: Rows = {}
        before = self.promise.next_id
        for message in self.guest.link.poll():
            if isinstance(message, Acked):
                for _ in range(message.frames):
                    told |= self.submitted.pop(0)
            elif isinstance(message, Leased):
                self.free += range(message.first, message.first + message.count)
                self.promise.next_id = message.first + message.count
            elif isinstance(message, Results):
                told |= {("dq_result", id): (str(STATUS[status]), data) for id, status, data, *_ in message.rows}
            elif isinstance(message, Ended):
                told["end", message.run] = (message.state, message.payload)
        for message in self.link.poll():
            if isinstance(message, Deliver):
                rows = [row for row in message.rows if row[1]]
                told |= {("dq_result", row[1]): (str(STATUS[row[3]]), row[4]) for row in rows}
        if told or before != self.promise.next_id:
            self.promise.rows |= told
            self.mark()

    def says(self, message: Any, asked: Rows, *, acknowledged: bool = True) -> None:
        self.asked |= asked
        if acknowledged:
            self.submitted.append(asked)
        self.guest.says(message)

    def _make_room(self, _seconds: float) -> bool:
        if self.disk.fault is not None:
            self.disk.fault.on = False
        return True

    # A sync that takes its time.

    def _synced(self, seconds: float) -> None:
        """Counts it, and does not measure: a lot must give the same record again."""
        self.supervisor.committer.syncs += 1

    def _under_way(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            self._began.set()
            assert self._go_on.wait(30)
            self._go_on.clear()

    def _start(self) -> None:
        """Begins a sync in the thread, and waits until it is under way: what is written from now on is not covered."""
        self._began.clear()
        _SyncThread.start(self.supervisor.committer._thread)
        assert self._began.wait(30)

    def finish_sync(self) -> None:
        if self.supervisor.committer._in_flight is not None:
            self._go_on.set()
            self.supervisor.committer._thread.wait()
            self.supervisor.committer.synced()

    # What goes on.

    def turn(self, seconds: float = 0.0) -> None:
        """What the loop does."""
        self.clock.at += int(seconds * 1_000_000)
        supervisor = self.supervisor
        supervisor.alarms.run(self.clock.now())
        supervisor.hosts.assign()
        supervisor.scheduler.revoke_stuck()
        supervisor.scheduler.dispatch()
        supervisor.hosts.deliver()
        supervisor.committer.commit()
        self.listen()
        for worker in self.workers:
            self.claims += [(worker, claim) for claim in worker.claims()]

    def lease(self) -> None:
        self.guest.says(Lease())

    def submit(self) -> None:
        count = self.chance.randint(1, 12)
        if len(self.free) < count:
            self.lease()
            return
        ids, self.free = self.free[:count], self.free[count:]
        rows = [(id, self.function.id, b"p%d-" % id * self.chance.choice((1, 1, 30, 900))) for id in ids]
        self.says(Submit(rows), {("dq_step", id): args for id, _, args in rows})

    def finish(self) -> None:
        """A worker sends results of some of a claim's steps."""
        if not self.claims:
            return
        worker, claim = self.claims.pop(self.chance.randrange(len(self.claims)))
        ids = [row[0] for row in claim.rows]
        rows = [(id, COMPLETED, b"r%d-" % id * self.chance.choice((1, 30)), 1, 1000) for id in ids]
        self.asked |= {("dq_result", row[0]): ("completed", row[2]) for row in rows}
        parts = [rows] if self.chance.random() < 0.5 else [rows[:1], rows[1:]]
        for part in parts:
            if part:
                self.supervisor.results.take(worker.member, Results(claim.epoch, part))
            if self.chance.random() < 0.5:
                self.turn()

    def begin_run(self) -> None:
        if not self.free:
            self.lease()
            return
        id = self.free.pop(0)
        name = f"run-{id}"
        self.says(Start(id, id, name, self.flow.id, b"args", b"f" * 16), {("dq_run", id): name})
        self.guest.says(Watch(id))
        self.turn()
        self.open_runs.append(self.supervisor.ledger.runs[id])

    def go_on_with_run(self) -> None:
        """Its code asks for a step, sleeps, waits for a signal, or ends."""
        if not self.open_runs:
            return
        run = self.chance.choice(self.open_runs)
        way = self.chance.randrange(6)
        if way < 2:
            self.asked["dq_step", self.asks(run, self.function)] = b"args"
        elif way == 2:
            self.sleeps(run, 5)
        elif way == 3:
            self.waits(run, "go", 9)
        elif way == 4 and self.free:
            key = self.free.pop(0)
            self.says(Signal(key, key, run.name, "go", b"signal"), {("dq_signal", key): b"signal"}, acknowledged=False)
        elif not run.open:
            self.asked["end", run.id] = ("completed", b"result")
            self.open_runs.remove(run)
            assert self.supervisor.hosts.hear(self.host, Finish(run.id, "completed", b"result"))

    def work(self, count: int) -> None:
        """So many things, by lot, and what time brings."""
        self.lease()
        deeds: list[Callable[[], object]] = [
            self.submit, self.submit, self.finish, self.finish, self.turn, self.turn, self.begin_run,
            self.go_on_with_run, self.go_on_with_run, self.finish_sync, self.supervisor.store.checkpoint,
            self.supervisor.committer.tidy, lambda: self.turn(4),
        ]  # fmt: skip
        for _ in range(count):
            self.chance.choice(deeds)()
        self.finish_sync()


def record(
    folder: Path, disk: Disk, chance: random.Random, count: int, *, slow: bool = False, fault: Fault | None = None
) -> Shift:
    """Lets a supervisor work, and kills it, or lets it fail. Its committer has a clock of the lot's."""
    with open_room(folder, clock=Ticks(chance), vfs=disk.name) as room:
        shift = Shift(room, disk, chance, slow=slow)
        disk.fault = fault
        try:
            shift.work(count)
        except StoreError:
            pass  # it ends, and its successor goes on from what is on disk
        disk.fault = None
        final = read(room.supervisor.store._opened)
        shift.asked = final | shift.asked  # what the supervisor itself has written is written by somebody
        disk.before = disk.during_sync = None
        return shift


def resumes(path: Path) -> list[str]:
    """A whole supervisor takes the file over, and everything in it comes to an end, once."""
    store = Store.open(path, create=False)
    try:
        before = read(store._opened)
    finally:
        store.close(clean=False)
    with open_room(path.parent, boot_id="boot-2") as room:
        guest, hand = Guest(room), Hand(room, room.function(), 100)
        alone = [id for table, id in before if table == "dq_step" and room.supervisor.store.run_of_step(id) is None]
        guest.says(Adopt(sorted(alone), []))
        told: dict[int, tuple[str, bytes]] = {}
        found: list[str] = []
        for _ in range(len(alone) + 5):
            room.turn()
            room.supervisor.committer.settle()
            for message in guest.hears(Results):
                for id, status, payload, *_ in message.rows:
                    if id in told:
                        found.append(f"the step {id} ends twice")
                    told[id] = (str(STATUS[status]), payload)
            for claim in hand.claims():
                again = [row[0] for row in claim.rows if ("dq_result", row[0]) in before]
                found += [f"the step {id} is done, and runs again" for id in again]
                hand.finishes(claim)
        found += [f"the step {id} never ends" for id in alone if id not in told]
        changed = [id for id in told if before.get(("dq_result", id), told[id]) != told[id]]
        return found + [f"the result of {id} is another one now" for id in changed]
