"""Hosts that are played: each run is a small program, which asks for the same from whatever record it begins."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from dq.executor.frames import (
    Assign,
    Define,
    Deliver,
    Finish,
    Forget,
    Fork,
    History,
    Joined,
    Lease,
    Leased,
    Steps,
    Stop,
    Term,
)
from dq.executor.options import SLEEP, SUPERVISOR, WAIT_SIGNAL
from dq.executor.slots import HOST, SlotWriter
from tests.simulation.machine import SECOND, Process

if TYPE_CHECKING:
    from tests.simulation.world import World

BUILTINS: dict[str, str] = {"sleep": SLEEP, "signal": WAIT_SIGNAL}


class Play:
    """A run at a host: rounds of things that are asked for together, each round when the one before has ended."""

    def __init__(self, assigned: Assign) -> None:
        self.id, self.name = assigned.run, assigned.name
        self.rounds: list[list[list[Any]]] = json.loads(assigned.args)
        self.known: dict[tuple[str, int], int] = {}  # (function, occurrence) -> step
        self.ends: dict[int, bytes] = {}
        self.whole = self.over = False
        self.cancelled = assigned.cancel is not None

    def places(self) -> list[list[tuple[str, int, Any]]]:
        """The rounds with each thing's function and occurrence."""
        counts: dict[str, int] = {}
        rounds: list[list[tuple[str, int, Any]]] = []
        for asked in self.rounds:
            rounds.append([])
            for kind, told in asked:
                name: str = BUILTINS.get(kind) or kind
                counts[name] = counts.get(name, -1) + 1
                rounds[-1].append((name, counts[name], told))
        return rounds


class Host(Process):
    """See the module."""

    kind = "host"

    def __init__(self, world: World, order: Fork, main: socket.socket, control: socket.socket) -> None:
        super().__init__(world.machine, main, control)
        self.world = world
        self.main, self.control = self.pipes
        self.slot = SlotWriter(world.memory, order.slot)
        self.slot.own(order.boot_epoch, self.pid, 1, order.nonce, HOST)
        self.plays: dict[int, Play] = {}
        self.numbers: dict[str, int] = {}
        self.names: dict[int, str] = {}  # the file's numbers
        self.ids: list[range] = []
        self.asked = self.leaving = False
        self.running: Play | None = None
        self.main.say(Joined(self.pid, 1, order.nonce))

    def ended(self) -> None:
        if self.running is not None:
            self.world.judge.host_died_in.add(self.running.id)
            self.world.sometimes["a host died in a run"] += 1

    def acts(self) -> bool:
        if self.paused:
            return False
        self.slot.beat()
        if self.main.gone or self.leaving:
            self.dies()
            return True
        if self.running is not None:
            play, self.running = self.running, None
            self._plays(play)
            if self.running is None:
                self.slot.free(0)
            return True
        heard = [*self.control.hears(), *self.main.hears()]
        for message in heard:
            self._hear(message)
        if not self.ids and not self.asked:
            self.asked = True
            self.main.say(Lease())
        ready = [play for play in self.plays.values() if self.ids and not play.over and self._open(play)]
        if ready:
            self.running = ready[0]
            self.slot.begin(0, ready[0].id, 0)
        return bool(heard or ready) or self.flows(1 << 16)

    def _hear(self, message: Any) -> None:  # noqa: C901 -- one case for each kind of frame
        match message:
            case Assign():
                self.plays[message.run] = Play(message)
            case History(run, rows, last):
                play = self.plays[run]
                for id, function, _, occurrence, _, _, _, status, payload, _ in rows:
                    play.known[self.names[function], occurrence] = id
                    if status >= 0:
                        play.ends[id] = payload
                play.whole = last
            case Define():
                self.names[message.number] = message.name
            case Deliver(rows):
                for run, step, _, _, payload, _ in rows:
                    if run not in self.plays:
                        continue
                    if step == 0:
                        self.plays[run].cancelled = True
                    else:
                        self.world.judge.delivered(run, step, payload)
                        self.plays[run].ends[step] = payload
            case Leased(first, count):
                self.ids.append(range(first, first + count))
            case Forget(run):
                self.plays.pop(run, None)
            case Stop():
                self.leaving = True
            case _:
                pass

    def _open(self, play: Play) -> bool:
        """Whether its code has something to do: a round to ask for, or an end."""
        if not play.whole:
            return False
        for asked in play.places():
            steps = [play.known.get((name, occurrence)) for name, occurrence, _ in asked]
            if None in steps:
                return True
            if any(step not in play.ends for step in steps):
                return play.cancelled
        return True

    def _plays(self, play: Play) -> None:
        """Runs the code of a run until it rests."""
        values: list[str] = []
        for asked in play.places():
            if play.cancelled:
                break
            fresh = [place for place in asked if place[:2] not in play.known]
            if fresh:
                self._asks(play, fresh)
                return
            steps = [play.known[place[:2]] for place in asked]
            if any(step not in play.ends for step in steps):
                return
            values += [play.ends[step].hex() for step in steps]
        play.over = True
        text = json.dumps(values).encode()
        self.main.say(
            Finish(play.id, "failed" if play.cancelled else "completed", b"cancelled" if play.cancelled else text)
        )

    def _asks(self, play: Play, fresh: list[tuple[str, int, Any]]) -> None:
        rows, terms = [], []
        for name, occurrence, told in fresh:
            block = self.ids[0]
            id, self.ids[0] = block[0], block[1:]
            play.known[name, occurrence] = id
            args = str(told).encode()
            rows.append((id, play.id, self._number(name), "0", occurrence, b"g" * 16, args))
            if name == SLEEP:
                terms.append(Term(id, after=told * SECOND))
                self.world.judge.sleeps.add(id)
            elif name == WAIT_SIGNAL:
                terms.append(Term(id, topic=told))
        self.main.say(Steps(rows, terms))

    def _number(self, name: str) -> int:
        if name not in self.numbers:
            self.numbers[name] = len(self.numbers) + 1
            define = self.world.defines.get(name) or Define(
                0, name, "step", name.encode().ljust(16, b"-")[:16], b"", SUPERVISOR, 1
            )
            self.main.say(
                Define(self.numbers[name], *[getattr(define, field) for field in define.__struct_fields__[1:]])
            )
        return self.numbers[name]

    def flows(self, count: int) -> bool:
        sent = self.main.flows(count)
        return bool(self.control.flows(count) or sent)
