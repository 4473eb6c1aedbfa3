"""The processes of the crew as the supervisor sees them: members, and the pools and lanes that they stand in.

A pool is an executor by name ("cpu") with its size. A lane is a pool for one template: the steps in it can run in any
of its members. Members of all lanes of a pool share its size.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from dq.crew.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dq.crew.claims import Claim, Segment
    from dq.crew.gates import Gate
    from dq.crew.kernel import Kernel
    from dq.crew.nursery import Nursery
    from dq.crew.peer import Peer
    from dq.executor.contract import Capability
WORKER, HOST = "worker", "host"


class Member:
    """A worker, bridge or host. It is `ready` between its Joined frame and its death or its Stop."""

    __slots__ = (
        "beat", "beat_at", "born_at", "busy_since", "claims", "control", "cpu", "cpu_at", "defined", "died", "epochs", "finished",
        "ids", "kind", "lane", "load", "nonce", "nursery", "outstanding", "peer", "pid", "pidfd", "ready", "revoked", "runs",
        "slot", "started", "stopping", "why",
    )  # fmt: skip

    def __init__(self, kind: str, lane: Lane | None, nursery: Nursery, slot: int, nonce: bytes, now: float) -> None:
        self.kind = kind
        self.lane = lane
        self.nursery = nursery
        self.slot = slot
        self.nonce = nonce
        self.born_at = now
        self.peer: Peer
        self.control: Peer
        self.pid = 0
        self.pidfd = -1
        self.started = 0
        self.ready = False
        self.stopping = False
        self.died = False
        self.why = ""  # set by whoever kills it: the cause that its attempts are given
        self.defined: set[int] = set()
        self.claims: dict[int, Claim] = {}
        self.outstanding = 0  # rows
        self.load = 0  # nanoseconds, estimated
        self.busy_since = now
        self.revoked = False
        self.finished = 0
        self.runs: set[int] = set()  # a host's
        self.ids = Leases()  # the same
        self.beat = 0
        self.beat_at = now
        self.cpu = -1.0
        self.cpu_at = now

    def adopt(self, pid: int, started: int, kernel: Kernel) -> bool:
        """The process has told who it is; from now on the kernel tells when it dies. False: it is gone already."""
        try:
            self.pidfd = kernel.open(pid)
        except ProcessLookupError:
            return False
        self.pid = pid
        self.started = started
        return True


class Line:
    """Rows that wait for the same, in turns by owner."""

    def __init__(self) -> None:
        self.queues: dict[int, deque[Segment]] = {}  # by owner; 0 for work whose client is gone
        self.turns: deque[int] = deque()


class Lane(Line):
    """Steps that wait for one executor with one template, and the members that run them.

    Attributes:
        ready: by priority, open gates at which rows of this lane wait, in turns. Its own line has priority 0.
        gates: all gates at which rows of this lane wait.
        plain_next: whether the lane's own line has the next turn among what has priority 0.
        pending: rows that need nothing but a worker: those of the line, and those at open gates.
    """

    def __init__(self, pool: Pool, nursery: Nursery) -> None:
        super().__init__()
        self.pool = pool
        self.nursery = nursery
        self.ready: dict[int, OrderedDict[Gate, None]] = {}
        self.gates: set[Gate] = set()
        self.plain_next = True
        self.pending = 0
        self.members: list[Member] = []
        self.failures = 0  # members that died before they joined, in a row
        self.retry_at = 0.0

    def segments(self) -> Iterator[Segment]:
        """All that waits here."""
        lines: list[Line] = [self]
        for gate in self.gates:
            lines += gate.waits[self].lines.values()
        for line in lines:
            for queue in line.queues.values():
                yield from queue


class Pool:
    """An executor by name, and how many members it may have."""

    def __init__(self, name: str, spec: str, members: int, slots: int, capabilities: Capability) -> None:
        self.name = name
        self.capabilities = capabilities
        self.spec = spec  # as the user wrote it
        self.size = members
        self.slots = slots
        self.lanes: list[Lane] = []

    @property
    def count(self) -> int:
        return sum(len(lane.members) for lane in self.lanes)
