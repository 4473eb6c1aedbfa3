"""Clients that are played: they ask, note what is promised to them, and ask again after a reconnect."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from dq.executor.frames import (
    VERSION,
    Acked,
    Adopt,
    Cancel,
    CancelDone,
    CancelRun,
    Define,
    Done,
    Ended,
    Hello,
    Message,
    Refused,
    Resubmit,
    Results,
    Signal,
    Start,
    Started,
    Submit,
    Term,
    Watch,
    Welcome,
)  # fmt: skip
from tests.simulation.machine import SECOND, Pipe

if TYPE_CHECKING:
    from tests.simulation.world import World

STEPS = ("m:plain", "m:narrow", "m:other")


class Client:
    """See the module."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.pipe: Pipe | None = None
        self.ids = range(0)
        self.waiting: list[list[tuple[int, int, bytes]]] = []  # submits that are not acknowledged, in order
        self.terms: dict[int, Term] = {}
        self.frames: list[list[tuple[int, int, bytes]] | None] = []  # what the next Acked stand for
        self.asks: dict[int, Message] = {}  # by ticket: starts, signals and cancels that are not answered
        self.open: set[int] = set()  # acknowledged, no result yet
        self.watched: dict[int, str] = {}
        self._tickets = number * 100_000
        self._count = 0

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.asks or self.open or self.watched)

    def connects(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(self.world.address)
        self.pipe = Pipe(sock)
        self.frames.clear()
        self.ids = range(0)
        self.pipe.say(Hello(VERSION, 1, b"", self.world.context))
        for number, define in enumerate(self.world.defines.values(), 1):
            values = [getattr(define, field) for field in define.__struct_fields__[1:]]
            self.pipe.say(Define(number, *values))
        for rows in self.waiting:
            self.pipe.say(Resubmit(rows, [self.terms[row[0]] for row in rows if row[0] in self.terms]))
            self.frames.append(rows)
            self.world.sometimes["submitted again"] += 1
        for message in self.asks.values():
            self._asks(message)
            self.world.sometimes["asked again"] += 1
        if self.open:
            self.pipe.say(Adopt(sorted(self.open), []))
        for run in self.watched:
            self.pipe.say(Watch(run))

    def leaves(self) -> None:
        """Its connection breaks."""
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None

    def acts(self) -> bool:
        if self.pipe is not None and self.pipe.gone:
            self.leaves()
        if self.pipe is None:
            self.connects()
            return True
        heard = self.pipe.hears()
        for message in heard:
            self._hear(message)
        return bool(self.pipe.flows(1 << 16) or heard)

    def _hear(self, message: Any) -> None:  # noqa: C901, PLR0912 -- one case for each kind of frame
        judge = self.world.judge
        self.world.trace("client", self.number, type(message).__name__)
        match message:
            case Welcome():
                self.ids = range(message.first, message.first + message.count)
            case Acked(count):
                for _ in range(count):
                    rows = self.frames.pop(0)
                    if rows is not None:
                        self.waiting.remove(rows)
                        judge.acked.update({id: (self.world.named(number), args) for id, number, args in rows})
                        self.open |= {row[0] for row in rows} - judge.results.keys()
            case Results(_, rows):
                for id, status, payload, _, _ in rows:
                    judge.told(id, status, payload)
                    self.open.discard(id)
            case CancelDone(_, steps):
                self.open.difference_update(steps)
            case Started(ticket, id, _):
                start = self.asks.pop(ticket)
                assert isinstance(start, Start)
                judge.runs[start.name] = start.args
                self.watched[id] = start.name
                self._say(Watch(id))
            case Ended(run, state, payload):
                name = self.watched.pop(run, "")
                if name:
                    judge.run_ends[name] = state, payload
            case Done(ticket):
                self._done(self.asks.pop(ticket))
            case Refused(ticket, error, text):
                if ticket not in self.asks or error not in ("RunEnded", "NoSuchRun"):
                    judge.wrong(f"a client is refused: {error} {text}")
                asked = self.asks.pop(ticket)
                if isinstance(asked, Signal) and error == "NoSuchRun":
                    self.world.awaited.append(asked.run)  # its start is on its way
            case _:
                pass

    def _done(self, asked: Message) -> None:
        if isinstance(asked, Signal):
            self.world.judge.signals[asked.run, asked.payload] += 1

    def _say(self, message: Message) -> None:
        assert self.pipe is not None
        self.pipe.say(message)

    def _asks(self, message: Message) -> None:
        self._say(message)
        if isinstance(message, Start):
            self.frames.append(None)

    def wants(self) -> None:
        """Asks for something new, if it is let in."""
        if self.pipe is None or len(self.ids) < 100:
            return
        chance = self.world.chance
        chance.choices(
            [self._submits, self._starts, self._signals, self._cancels, self._cancels_run], [10, 5, 3, 2, 1]
        )[0]()

    def _id(self) -> int:
        id, self.ids = self.ids[0], self.ids[1:]
        return id

    def _ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def _submits(self) -> None:
        chance = self.world.chance
        number = chance.randint(1, len(STEPS))
        rows = [(self._id(), number, self._args()) for _ in range(chance.randint(1, 5))]
        if chance.random() < 0.2:
            self.terms[rows[0][0]] = Term(rows[0][0], after=chance.randint(1, 5) * SECOND)
        self.waiting.append(rows)
        self.frames.append(rows)
        self._say(Submit(rows, [self.terms[row[0]] for row in rows if row[0] in self.terms]))

    def _args(self) -> bytes:
        self._count += 1
        return b"%d.%d%s" % (self.number, self._count, b"!" if self.world.rolls(0.1) else b"")

    def _starts(self) -> None:
        chance, name = self.world.chance, f"r{self._ticket()}"
        rounds: list[list[list[Any]]] = [
            [[chance.choice(STEPS), self._args().decode()] for _ in range(chance.randint(1, 3))]
            for _ in range(chance.randint(1, 3))
        ]
        if chance.random() < 0.5:
            rounds.append([["sleep", chance.randint(1, 8)]])
        if chance.random() < 0.4:
            rounds.insert(0, [["signal", "go"]])
            self.world.awaited.append(name)
        start = Start(self._tickets, self._id(), name, len(STEPS) + 1, json.dumps(rounds).encode(), b"f" * 16)
        self.asks[self._tickets] = start
        self._asks(start)

    def _signals(self) -> None:
        if self.world.awaited:
            name = self.world.awaited.pop(0)
            ticket = self._ticket()
            self.asks[ticket] = Signal(ticket, self._id(), name, "go", b"signal of %d" % ticket)
            self._asks(self.asks[ticket])

    def _cancels(self) -> None:
        if self.open:
            self._say(Cancel(self._ticket(), self.world.chance.sample(sorted(self.open), min(3, len(self.open)))))

    def _cancels_run(self) -> None:
        names = [name for name in self.watched.values() if name not in self.world.awaited]
        if names:
            name, ticket = self.world.chance.choice(names), self._ticket()
            self.world.judge.cancelled.add(name)
            self.asks[ticket] = CancelRun(ticket, self._id(), name, self.world.rolls(0.5))
            self._asks(self.asks[ticket])
