"""A supervisor without processes whose host the test plays: it asks for steps, waits and child runs, by hand."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dq.crew.evidence import Death
from dq.crew.ledger import Function, Run
from dq.crew.members import HOST, Member
from dq.crew.peer import Peer
from dq.executor import frames, options
from dq.executor.frames import CancelRun, Deliver, Done, Finish, Refused, Signal, Start, Steps, Term, Withdraw
from dq.executor.link import Link
from dq.executor.options import SLEEP, SUPERVISOR, WAIT_SIGNAL
from tests.unit.crewroom import Guest, Hand, Room, open_room

START = 1_764_000_000_000_000
SECOND = 1_000_000
KILLED = Death(9, 0)


class Clock:
    """Shows what it is set to: microseconds UTC."""

    def __init__(self, at: int = START) -> None:
        self.at = at

    def now(self) -> int:
        self.at += 1
        return self.at

    def monotonic(self) -> float:
        return self.at / SECOND


class Lodge:
    """The supervisor, a client, and a host with the runs that it is given."""

    def __init__(self, room: Room, clock: Clock) -> None:
        self.room = room
        self.clock = clock
        self.supervisor = room.supervisor
        self.killed: list[Member] = []
        self.supervisor.staff.kill = self._kill  # type: ignore[method-assign]  # its pids are nobody's
        self.guest = Guest(room)
        self.first, _ = self.supervisor.clients._lease_to(self.guest.client)
        self.flow = self.workflow()
        self._tickets = itertools.count(1)
        self.heard: list[Any] = []
        self.move_in()

    def _kill(self, member: Member, why: str) -> None:
        member.why = member.why or why
        member.stopping = True
        self.killed.append(member)

    def move_in(self) -> None:
        """A new host comes."""
        ours, theirs = socket.socketpair()
        control, other = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        staff = self.supervisor.staff
        nursery = staff.nursery(self.room.context)
        self.host = Member(HOST, None, nursery, staff._free.pop(0), b"h" * 16, 0.0)
        self.host.peer = Peer(ours, self.supervisor.poller)
        self.host.control = Peer(control, self.supervisor.poller)
        self.host.pid, self.host.ready = 3999, True
        self.room.sockets += [ours, theirs, control, other]
        staff.members.add(self.host)
        staff.hosts[self.room.context] = self.host
        self.supervisor.hosts.functions[self.host] = {}
        self.link = Link(theirs)
        self.ids = itertools.count(self.supervisor.hosts.lease_to(self.host)[0])
        self._counts: dict[tuple[int, str], itertools.count[int]] = {}

    def workflow(self, name: str = "m:flow", **told: Any) -> Function:
        """A workflow, with options."""
        define = frames.Define(
            1, name, "workflow", name.encode().ljust(16, b"-"), b"code", "", 3, options.pack(options.Options(**told))
        )
        function = self.supervisor.ledger.function(define, self.room.context)
        self.guest.client.functions[function.id] = function
        return function

    def builtin(self, name: str) -> Function:
        define = frames.Define(1, name, "step", name.encode().ljust(16, b"-"), b"", SUPERVISOR, 1)
        return self.supervisor.ledger.function(define, self.room.context)

    def start(self, name: str = "r", function: Function | None = None) -> Run:
        """A client starts a run, and the host is given it."""
        id, self.first = self.first, self.first + 1
        told = Start(next(self._tickets), id, name, (function or self.flow).id, b"args", b"f" * 16)
        self.guest.says(told)
        self.turn()
        return self.supervisor.ledger.runs[id]

    def turn(self, seconds: float = 0.0) -> None:
        """What the loop does, after so many seconds; all is on disk then, and told."""
        self.clock.at += int(seconds * SECOND)
        supervisor = self.supervisor
        supervisor.alarms.run(self.clock.now())
        supervisor.hosts.assign()
        supervisor.scheduler.revoke_stuck()
        supervisor.scheduler.dispatch()
        supervisor.hosts.deliver()
        supervisor.committer.settle()
        if self.host in supervisor.staff.members:
            self.heard += self.link.poll()

    def asks(self, run: Run, function: Function, args: bytes = b"args", term: Term | None = None) -> int:
        """A run asks for a step; its id."""
        id = next(self.ids)
        self.supervisor.hosts.functions[self.host][function.id] = function
        occurrence = next(self._counts.setdefault((run.id, function.name), itertools.count()))
        row = (id, run.id, function.id, "0", occurrence, b"g" * 16, args)
        terms = [Term(id, term.after, term.at, topic=term.topic)] if term is not None else []
        assert self.supervisor.hosts.hear(self.host, Steps([row], terms))
        return id

    def sleeps(self, run: Run, seconds: float) -> int:
        return self.asks(run, self.builtin(SLEEP), term=Term(0, after=int(seconds * SECOND)))

    def waits(self, run: Run, signal: str = "go", seconds: float = 0.0) -> int:
        """A run waits for a signal, no longer than so many seconds; 0: without limit."""
        return self.asks(run, self.builtin(WAIT_SIGNAL), term=Term(0, after=int(seconds * SECOND), topic=signal))

    def finishes(self, run: Run, state: str = "completed") -> None:
        assert self.supervisor.hosts.hear(self.host, Finish(run.id, state, b"result"))
        self.turn()

    def withdraws(self, run: Run, *ids: int) -> None:
        assert self.supervisor.hosts.hear(self.host, Withdraw([(run.id, id) for id in ids]))
        self.turn()

    def signal(self, run: str, name: str = "go", payload: bytes = b"payload", *, key: int = 0) -> Done | Refused:
        """A client sends a signal; the answer. `key`: a message that is sent again."""
        id, self.first = (key, self.first) if key else (self.first, self.first + 1)
        return self._answer(Signal(next(self._tickets), id, run, name, payload))

    def cancel(self, run: str, *, now: bool = False, key: int = 0) -> Done | Refused:
        """A client cancels a run; the answer."""
        id, self.first = (key, self.first) if key else (self.first, self.first + 1)
        return self._answer(CancelRun(next(self._tickets), id, run, now))

    def _answer(self, message: Any) -> Done | Refused:
        self.guest.says(message)
        self.turn()
        (answer,) = self.guest.hears(Done, Refused)
        assert isinstance(answer, Done | Refused)
        return answer

    def told(self) -> list[tuple[int, int, int, int, bytes]]:
        """What the host was told since the last look: (run, step, seq, status, payload), step 0 for a cancel."""
        heard, self.heard = self.heard, []
        return [row[:5] for message in heard if isinstance(message, Deliver) for row in message.rows]

    def states(self) -> dict[str, str]:
        """Runs by name."""
        return dict(self.room.rows("SELECT name, state FROM dq_run"))

    def results(self) -> dict[int, tuple[str, bytes]]:
        """How steps have ended."""
        return {
            id: (state, payload) for id, state, payload in self.room.rows("SELECT step, state, payload FROM dq_result")
        }

    def state(self, step: int) -> str:
        """How a step has ended, "" where it has not."""
        return self.results().get(step, ("", b""))[0]

    def dies(self, member: Member) -> None:
        """The kernel tells of a death."""
        self.supervisor._lost(member, KILLED)
        self.turn()


def worker(lodge: Lodge, function: Function, number: int = 0) -> Hand:
    return Hand(lodge.room, function, number)


@contextmanager
def lodge(folder: Path, clock: Clock | None = None, *, workers: int = 2) -> Iterator[Lodge]:
    """A supervisor that is killed at the end of the block."""
    clock = clock or Clock()
    with open_room(folder, workers=workers, clock=clock) as room:
        yield Lodge(room, clock)
