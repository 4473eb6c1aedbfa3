"""What tests of queues share: functions with queues, submits with terms, workers that do what they are told."""

from __future__ import annotations

from typing import Any

from dq.crew.evidence import Death
from dq.crew.ledger import Function
from dq.executor import options
from dq.executor.frames import Claim, Context, Define, Submit, Term
from dq.flow.queue import Queue
from tests.unit.crewroom import Guest, Hand, Room

SECOND = 1_000_000


class Watch:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.micros = 1_764_000_000 * SECOND

    def now(self) -> int:
        return self.micros

    def monotonic(self) -> float:
        return self.micros / SECOND

    def passes(self, room: Room, seconds: float) -> None:
        """Time passes, and what is due is done."""
        self.micros += round(seconds * SECOND)
        room.supervisor.alarms.run(self.micros)


def step(
    room: Room, queue: Queue | None = None, name: str = "m:f", *, cost: int = -1, version: str = "", folder: str = "/"
) -> Function:
    """A step's function, perhaps with a queue; `version` makes it another one with the same name, `folder` another lane's."""
    packed = options.pack(options.Options(queue=queue.pack() if queue is not None else b"", version=version))
    digest = f"{name}{version}".encode().ljust(16, b"-")[:16]
    function = room.supervisor.ledger.function(
        Define(1, name, "step", digest + packed, b"code", "", 3, packed),
        room.supervisor.ledger.context(Context("python", "", folder, (), "")),
    )
    function.cost = cost
    return function


def submits(guest: Guest, function: Function, *terms: dict[str, Any]) -> list[int]:
    """Submits a step for each of the terms in one frame; returns their ids."""
    first, _ = guest._room.supervisor.clients._lease_to(guest.client)
    guest.client.functions[function.id] = function
    rows = [(first + n, function.id, b"%d" % n) for n in range(len(terms))]
    guest.says(Submit(rows, [Term(first + n, **term) for n, term in enumerate(terms) if term]))
    return [row[0] for row in rows]


class Gang:
    """Some workers, and what they hold."""

    def __init__(self, room: Room, function: Function, count: int, *others: Function) -> None:
        """`count` workers for a function, and one more for each of the others."""
        self.room = room
        self.hands = [Hand(room, made, number) for number, made in enumerate([*[function] * count, *others])]
        self.open: dict[int, tuple[Hand, Claim]] = {}

    def turn(self) -> list[int]:
        """Has the supervisor give out what it will; returns the ids that came, in order."""
        self.room.turn()
        came: list[int] = []
        for hand in self.hands:
            for claim in hand.claims():
                for row in claim.rows:
                    assert row[0] not in self.open, "nothing is given out twice"
                    self.open[row[0]] = hand, claim
                    came.append(row[0])
        return came

    def finishes(self, *ids: int) -> None:
        for id in ids:
            hand, claim = self.open.pop(id)
            hand.finishes(claim, id, busy=50_000_000)

    def drain(self, limit: int) -> list[int]:
        """Runs all there is, never more than `limit` at once; returns the order in which it began."""
        order: list[int] = []
        while came := self.turn():
            order += came
            assert len(self.open) <= limit
            self.finishes(next(iter(self.open)))
        while self.open:
            self.finishes(next(iter(self.open)))
            order += self.turn()
            assert len(self.open) <= limit
        return order

    def drain_one_by_one(self) -> list[int]:
        """The same for what runs alone: the order in which it began, after what runs now."""
        order: list[int] = []
        while self.open:
            [running] = self.open
            self.finishes(running)
            order += self.turn()
        return order

    def dies(self, hand: Hand) -> None:
        """A worker is killed; what it held is begun."""
        held = [id for id, (owner, _) in self.open.items() if owner is hand]
        for index, id in enumerate(held):
            hand.slot.begin(index, id, self.open.pop(id)[1].epoch)
        self.hands.remove(hand)
        self.room.supervisor._lost(hand.member, Death(9, 0))
