"""A supervisor without processes: its file is real, and the test plays its clients and workers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dq.crew.clients import Client
from dq.crew.kernel import Linux
from dq.crew.launches import Launches
from dq.crew.ledger import Function
from dq.crew.members import WORKER, Member
from dq.crew.options import Options
from dq.crew.peer import Peer
from dq.crew.recovery import recover
from dq.crew.supervisor import Supervisor
from dq.executor import frames, options
from dq.executor.contract import Capability
from dq.executor.frames import Claim, Context, Define, Results, Revoke, Submit
from dq.executor.link import Link
from dq.executor.slots import WORKER as WORKER_KIND
from dq.executor.slots import SlotReader, SlotWriter, open_slots
from dq.model.clock import Clock, SystemClock
from dq.model.states import COMPLETED
from dq.store.store import Store
from tests.process.crews import rows

_ABLE = Capability.KILL | Capability.HARD_TIMEOUT | Capability.MEMORY_LIMIT
CONTEXT = Context("python", "", "/", (), "")


class Guest:
    """The test's end of a client's connection."""

    def __init__(self, room: Room) -> None:
        ours, theirs = socket.socketpair()
        self._room = room
        self.link = Link(theirs)
        self.peer = Peer(ours, room.supervisor.poller)
        self.client = Client(self.peer, room.context)
        room.supervisor.clients.all[self.peer.fd] = self.client
        room.sockets += [ours, theirs]

    def says(self, message: frames.Any) -> None:
        assert self._room.supervisor.clients.hear(self.client, message)

    def submits(self, function: Function, count: int, payload: bytes = b"args") -> list[int]:
        """Submits so many steps in one frame; returns their ids."""
        first, _ = self._room.supervisor.clients._lease_to(self.client)
        self.client.functions[function.id] = function
        self.says(Submit([(first + n, function.id, payload) for n in range(count)]))
        return [first + n for n in range(count)]

    def hears(self, *kinds: type) -> list[Any]:
        return [message for message in self.link.poll() if isinstance(message, kinds)]


class Hand:
    """The test's end of a worker."""

    def __init__(self, room: Room, function: Function, number: int) -> None:
        scheduler = room.supervisor.scheduler
        lane = scheduler.lane(function)
        assert lane is not None
        main, self_main = socket.socketpair()
        control, self_control = socket.socketpair()
        for sock in (main, self_main, control, self_control):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.member = Member(WORKER, lane, lane.nursery, number, b"n" * 16, 0.0)
        self.member.peer = Peer(main, room.supervisor.poller)
        self.member.control = Peer(control, room.supervisor.poller)
        self.member.pid = 4000 + number  # nobody is asked by this number: the test plays it
        self.member.ready = True
        lane.members.append(self.member)
        room.supervisor.staff.members.add(self.member)
        room.supervisor.staff._free.remove(number)
        room.sockets += [main, self_main, control, self_control]
        self.link, self.control = Link(self_main), Link(self_control)
        self.slot = SlotWriter(room.memory, number)
        self.slot.own(room.supervisor.ledger.boot_epoch, self.member.pid, 1, b"n" * 16, WORKER_KIND)
        self._room = room

    def claims(self) -> list[Claim]:
        """The claims that have come since the last look."""
        return [message for message in self.link.poll() if isinstance(message, Claim)]

    def ids(self) -> list[int]:
        return [row[0] for claim in self.claims() for row in claim.rows]

    def is_asked_back(self) -> bool:
        return any(isinstance(message, Revoke) for message in self.control.poll())

    def finishes(self, claim: Claim, *ids: int, busy: int = 1000) -> None:
        """Results of a claim's steps, all where none is named."""
        rows = [(row[0], COMPLETED, b"result", 1, busy) for row in claim.rows if not ids or row[0] in ids]
        self._room.supervisor.results.take(self.member, Results(claim.epoch, rows))


class Room:
    """See the module."""

    def __init__(
        self, folder: Path, workers: int, boot_id: str, clock: Clock | None = None, vfs: str | None = None
    ) -> None:
        self.db = folder / "f.db"
        self.memory = open_slots(f"{self.db}.slots", create=True)
        self.sockets: list[socket.socket] = []
        slots = SlotReader(self.memory)
        store = Store.open(self.db, clock=clock, vfs=vfs)
        boot = store.boot(boot_id)
        self.supervisor = Supervisor(
            Options(str(self.db), workers),
            store,
            slots,
            clock or SystemClock(),
            boot.epoch,
            Launches(str(self.db)),
            Linux(),
        )
        pools = self.supervisor.scheduler.pools
        self.supervisor.scheduler.add_pool("cpu", f"process:{workers}", workers, 1, _ABLE)
        pools[""] = pools["cpu"]
        recover(self.supervisor, slots, boot)
        self.context = self.supervisor.ledger.context(CONTEXT)

    def function(
        self, name: str = "m:f", *, cost: int = -1, max_crashes: int = 3, executor: str = "", **told: Any
    ) -> Function:
        """A step's function; `cost` in nanoseconds, -1: not known yet; `told` are fields of its options."""
        digest = name.encode().ljust(16, b"-")
        packed = options.pack(options.Options(**told))
        function = self.supervisor.ledger.function(
            Define(1, name, "step", digest, b"code", executor, max_crashes, packed), self.context
        )
        function.cost = cost
        return function

    def turn(self) -> None:
        """What the loop does when it has heard everybody."""
        self.supervisor.scheduler.revoke_stuck()
        self.supervisor.scheduler.dispatch()
        self.supervisor.committer.commit()

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What is in the file once all is settled."""
        self.supervisor.committer.settle()
        return rows(self.db, statement)

    def close(self) -> None:
        """Ends as by a kill: nothing is put right."""
        for sock in self.sockets:
            sock.close()
        self.supervisor.store.close(clean=False)


@contextmanager
def open_room(
    folder: Path, *, workers: int = 2, boot_id: str = "boot-1", clock: Clock | None = None, vfs: str | None = None
) -> Iterator[Room]:
    room = Room(folder, workers, boot_id, clock, vfs)
    try:
        yield room
    finally:
        room.close()
