"""A queue, and its gates: what of it waits, what runs, and whether one more may begin.

The limits of a queue count by key, so each key has a gate of its own; a queue without keys has the one of "". What
waits at a gate stands there by lane, then by priority, then in turns by owner.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dq.crew.members import Line
from dq.executor.frames import Int

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dq.crew.claims import Segment
    from dq.crew.members import Lane, Member

_decoder = msgspec.msgpack.Decoder(tuple[str, Int, Int, Int, Int])


class Limits(NamedTuple):
    """0 stands for no limit."""

    concurrency: int = 0
    per_worker: int = 0
    begins: int = 0  # how many may begin
    period: int = 0  # within so many microseconds


NO_LIMITS = Limits()


def parse(packed: bytes) -> tuple[str, Limits]:
    """A queue's name and limits, as its steps' definitions have them. Raises msgspec.MsgspecError."""
    name, *limits = _decoder.decode(packed)
    return name, Limits(*limits)


def describe(limits: Limits) -> str:
    """Limits in words.

    >>> describe(Limits(4, 0, 100, 60_000_000))
    'concurrency 4, 100 in 60 s'
    """
    words = [f"concurrency {limits.concurrency}"] if limits.concurrency else []
    words += [f"{limits.per_worker} per worker"] if limits.per_worker else []
    words += [f"{limits.begins} in {limits.period / 1e6:g} s"] if limits.begins else []
    return ", ".join(words) or "no limits"


class Queue:
    """A queue by name. What was set by hand goes before what the code says."""

    __slots__ = ("by_hand", "code", "gates", "name", "paused")

    def __init__(self, name: str) -> None:
        self.name = name
        self.code: Limits | None = None  # nobody has defined it yet
        self.by_hand: Limits | None = None
        self.paused = False
        self.gates: dict[str, Gate] = {}

    @property
    def limits(self) -> Limits:
        return self.by_hand if self.by_hand is not None else self.code or NO_LIMITS

    def gate(self, key: str = "") -> Gate:
        """The gate of a key."""
        gate = self.gates.get(key)
        if gate is None:
            gate = self.gates[key] = Gate(self, key)
        return gate


class Waiting:
    """The rows of one lane that wait at a gate."""

    __slots__ = ("count", "lines")

    def __init__(self) -> None:
        self.count = 0
        self.lines: dict[int, Line] = {}  # by priority


class Gate:
    """What waits and what runs of a queue under one key."""

    __slots__ = ("alarm_at", "held", "is_open", "key", "queue", "recent", "running", "waits")

    def __init__(self, queue: Queue, key: str) -> None:
        self.queue = queue
        self.key = key
        self.is_open = not queue.paused
        self.running = 0  # rows that members hold
        self.held: dict[Member, int] = {}  # the same by member
        self.recent: OrderedDict[tuple[int, int], int] = OrderedDict()  # (step, attempt) -> when it was let through
        self.waits: OrderedDict[Lane, Waiting] = OrderedDict()  # the lane that was served least recently comes first
        self.alarm_at = 0  # when somebody looks at it again; microseconds UTC

    @property
    def waiting(self) -> int:
        """How many rows wait."""
        return sum(waiting.count for waiting in self.waits.values())

    def heads(self) -> Iterator[Segment]:
        """What comes first of each owner, in each lane and priority."""
        for waiting in self.waits.values():
            for line in waiting.lines.values():
                yield from (queue[0] for queue in line.queues.values() if queue)

    @property
    def is_idle(self) -> bool:
        return not (self.waits or self.running or self.recent)

    def line(self, lane: Lane, priority: int) -> Line:
        """Where rows of a lane wait; to be asked only where there are some, or will be."""
        waiting = self.waits.get(lane)
        if waiting is None:
            waiting = self.waits[lane] = Waiting()
        line = waiting.lines.get(priority)
        if line is None:
            line = waiting.lines[priority] = Line()
        return line

    def may_open(self) -> bool:
        """Whether pause, concurrency and rate let one more begin."""
        limits = self.queue.limits
        if self.queue.paused or (limits.concurrency and self.running >= limits.concurrency):
            return False
        return not limits.begins or len(self.recent) < limits.begins

    def is_full_for(self, member: Member) -> bool:
        """Whether a member holds as many as it may."""
        most = self.queue.limits.per_worker
        return bool(most) and self.held.get(member, 0) >= most

    def room(self, member: Member, slots: int, members: int, count: int) -> int:
        """How many of `count` rows a member may be given now, where so many members could take some.

        What is limited is not given ahead of need: a row that waits behind another in a worker would be one that nobody
        can overtake, and would keep a place that another worker could use.
        """
        limits = self.queue.limits
        if limits == NO_LIMITS:
            return count
        share = 1
        if limits.concurrency:
            share = -(-(limits.concurrency - self.running) // members)
            count = min(count, limits.concurrency - self.running)
        count = min(count, max(share, slots - member.outstanding))
        if limits.per_worker:
            count = min(count, limits.per_worker - self.held.get(member, 0))
        if limits.begins:
            count = min(count, limits.begins - len(self.recent))
        return count
