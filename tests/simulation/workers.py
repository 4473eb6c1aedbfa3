"""Workers that are played: they take claims, and get as far with them as chance lets them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from dq.executor.frames import Claim, Define, Fork, GaveBack, Joined, Results, Revoke, Stop
from dq.executor.slots import WORKER, SlotWriter
from dq.model.states import COMPLETED, FAILED
from tests.simulation.machine import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

ENTRIES = 512


def outcome(name: str, args: bytes) -> tuple[int, bytes]:
    """What a step comes to: the oracle."""
    return (FAILED, b"no:" + args) if args.endswith(b"!") else (COMPLETED, name.encode() + b":" + args)


class Worker(Process):
    """See the module."""

    kind = "worker"

    def __init__(self, world: World, order: Fork, main: socket.socket, control: socket.socket) -> None:
        super().__init__(world.machine, main, control)
        self.world, self.order = world, order
        self.main, self.control = self.pipes
        self.slot = SlotWriter(world.memory, order.slot)
        self.slot.own(order.boot_epoch, self.pid, 1, order.nonce, WORKER)
        self.names: dict[int, str] = {}
        self.todo: list[tuple[int, tuple[int, int, int, bytes]]] = []
        self.body: tuple[int, tuple[int, int, int, bytes], int] | None = None  # epoch, row, entry
        self.effect = False
        self.ready: list[tuple[int, int]] = []  # finished and not sent whole: entry, bytes still ahead of its end
        self.leaving, self._free = False, list(range(ENTRIES))
        self.main.say(Joined(self.pid, 1, order.nonce))

    def ended(self) -> None:
        judge, sometimes = self.world.judge, self.world.sometimes
        if self.body is not None:
            judge.stops(self.body[1][0])
            sometimes["died after the effect, before the result" if self.effect else "died after begin"] += 1
        elif self.todo:
            sometimes["died before begin"] += 1
        if self.ready:
            sometimes["died with a result unsent or half sent"] += 1

    def acts(self) -> bool:
        if self.paused:
            return False
        self.slot.beat()
        self._frees()
        if self.main.gone or (self.leaving and not self.body and not self.todo and not self.main.out):
            self.dies()
            return True
        did = self._listens()
        if self.body is not None:
            self._goes_on()
        elif self.todo:
            self._begins(*self.todo.pop(0))
        else:
            return self.flows(1 << 16) or did
        return True

    def _listens(self) -> bool:
        heard = [*self.control.hears(), *self.main.hears()]
        for message in heard:
            match message:
                case Claim(epoch, rows):
                    self.world.judge.claimed(epoch, rows, self.pid)
                    self.todo += [(epoch, row) for row in rows]
                case Define():
                    self.names[message.number] = message.name
                case Revoke():
                    self.control.say(GaveBack([(epoch, row[0]) for epoch, row in self.todo]))
                    self.world.sometimes["gave back"] += bool(self.todo)
                    self.todo.clear()
                case Stop():
                    self.leaving = True
                    self.control.say(GaveBack([(epoch, row[0]) for epoch, row in self.todo]))
                    self.todo.clear()
                case _:
                    pass
        return bool(heard)

    def _begins(self, epoch: int, row: tuple[int, int, int, bytes]) -> None:
        entry = self._free.pop()
        self.slot.begin(entry, row[0], epoch)
        self.body, self.effect = (epoch, row, entry), False
        self.world.judge.begins(self.names[row[2]], row[0], epoch, self.pid)

    def _goes_on(self) -> None:
        assert self.body is not None
        epoch, row, entry = self.body
        if not self.effect:
            self.effect = True
            self.world.judge.effect(row[0])
            return
        self.slot.finish(entry)
        self.body = None
        self.world.judge.stops(row[0])
        status, payload = outcome(self.names[row[2]], row[3])
        result = Results(epoch, [(row[0], status, payload, self.world.clock.now(), 1000)])
        for _ in range(2 if self.world.rolls(0.15) else 1):  # a result that comes twice is late the second time
            self.main.say(result)
        self.ready.append((entry, len(self.main.out)))
        self.world.judge.sending(self.pid, row[0], len(self.main.out))

    def _frees(self) -> None:
        """Frees the entries of what was sent before; a kill may come between the two."""
        while self.ready and self.ready[0][1] <= 0:
            entry = self.ready.pop(0)[0]
            self.slot.free(entry)
            self._free.append(entry)

    def flows(self, count: int) -> bool:
        """Lets some of what it has said go."""
        sent = self.main.flows(count)
        self.world.judge.sent(self.pid, sent)
        self.ready = [(entry, left - sent) for entry, left in self.ready]
        self.world.sometimes["half a frame was sent"] += bool(sent and self.main.out)
        return bool(self.control.flows(count) or sent)
