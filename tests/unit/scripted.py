"""A supervisor that a test plays by hand: it keeps the record in lists and runs the steps' bodies itself.

Time is played too: it stands at `Crew.now`, and goes on with each commit and to the due time of a timer that ends.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from dq import errors
from dq.executor import functions, slots
from dq.executor.codec import Codec
from dq.executor.failures import Failure
from dq.executor.frames import (
    Assign,
    Block,
    Define,
    Deliver,
    Finish,
    Forget,
    History,
    Lease,
    Leased,
    More,
    Steps,
    Term,
    Withdraw,
)
from dq.executor.link import Closed, Link
from dq.executor.options import PATCHED, PUBLISH, SLEEP, SUPERVISOR, WAIT_SIGNAL
from dq.flow.decorators import Workflow, workflow
from dq.flow.host import Host
from dq.flow.registry import define
from dq.model.payload import FAILURE, seal
from dq.model.states import CANCELLED, COMPLETED, FAILED

NOW = 1_764_000_000_000_000  # when every run of a test was started
_LIMIT = 30.0  # seconds that a test waits for anything


@dataclass
class StepOnRecord:
    """A step as the file would have it."""

    id: int
    function: int
    scope: str
    occurrence: int
    fingerprint: bytes
    args: bytes
    seq: int = 0
    status: int = -1
    payload: bytes = b""
    at: int = 0
    name: str = ""
    topic: str = ""  # the signal that a wait is for
    due: int = 0  # microseconds UTC; 0: never


@dataclass
class RunOnRecord:
    """A run as the file would have it."""

    id: int
    name: str
    function: int
    args: bytes
    steps: dict[int, StepOnRecord] = field(default_factory=dict)
    end: Finish | Block | None = None
    seq: int = 0
    cancel: tuple[int, int, str] | None = None


class Crew:
    """The record and, while `host` is open, one host in a thread of its own."""

    def __init__(self, folder: Path, *, lease: int = 1000) -> None:
        self.codec = Codec(str(folder / "blobs"))
        self.runs: dict[int, RunOnRecord] = {}
        self.defines: dict[bytes, Define] = {}  # by digest, with the file's numbers
        self.asked: list[StepOnRecord] = []  # by the present host, in order
        self.frames: list[int] = []  # rows of each Steps frame
        self.bodies = 0  # bodies that ran
        self.now = NOW
        self.withdrawn: list[int] = []  # steps that runs have asked the end of, in order
        self.tape: list[tuple[str, int]] = []  # "asked" or "ended", and the step: what the file has gone through
        self._rests = self._told = 0
        self.obeys = True  # whether what is withdrawn ends at once
        self._folder = folder
        self._lease = lease
        self._next = 1000
        self._link: Link | None = None
        self._inbox: list[Any] = []
        self._numbers: dict[int, int] = {}  # the host's number -> the file's

    def open(self) -> Crew:
        """Starts a host with an empty memory."""
        ours, theirs = socket.socketpair()
        ours.settimeout(_LIMIT)
        self._link = Link(ours)
        self._numbers = {}
        self._inbox = []
        self.asked = []
        self._thread = threading.Thread(target=self._host, args=(theirs,), daemon=True)
        self._thread.start()
        for message in self.defines.values():
            self._link.send(message)
        return self

    def close(self) -> None:
        """Kills the host: it is gone in the middle of whatever it does."""
        assert self._link is not None
        self._link.close()
        self._link = None
        self._thread.join(_LIMIT)
        assert not self._thread.is_alive()

    def _host(self, sock: socket.socket) -> None:
        memory = slots.open_slots(str(self._folder / "slots"), create=True)
        link = Link(sock)
        host = Host(link, slots.SlotWriter(memory, 0), self.codec)
        try:
            host.serve()
        except Closed:
            pass
        finally:
            # A thread that dies with greenlets in it leaves the clearing up to the main thread, which can crash in it.
            # (A real host is a process, and its greenlets live in its main thread.)
            for id in list(host._runs):
                host._forget(id)
            link.close()

    def start(self, workflow: Workflow[..., Any], *args: Any, id: int = 7) -> RunOnRecord:
        """Records a run and gives it to the host."""
        payload = self.codec.dumps((args, {}), f"a{id}", what="arguments")
        self.runs[id] = RunOnRecord(id, f"run-{id}", self._define(define(0, workflow)), payload)
        self.assign(id)
        return self.runs[id]

    def assign(self, id: int = 7, workflow: Workflow[..., Any] | None = None) -> RunOnRecord:
        """Gives a recorded run with its history to the host, perhaps under changed code."""
        run = self.runs[id]
        run.end = None
        if workflow is not None:
            run.function = self._define(define(0, workflow))
        link = self._linked()
        link.send(Assign(run.id, run.name, run.function, run.args, NOW, run.cancel))
        rows = [
            (s.id, s.function, s.scope, s.occurrence, s.fingerprint, s.args, s.seq, s.status, s.payload, s.at)
            for s in run.steps.values()
        ]
        for start in range(0, len(rows), 1000):
            link.send(History(run.id, rows[start : start + 1000], False))
        link.send(History(run.id, [], True))
        return run

    def _define(self, message: Define) -> int:
        known = self.defines.get(message.digest)
        if known is None:
            number = len(self.defines) + 1
            known = structs.replace(message, number=number)
            self.defines[message.digest] = known
            self._linked().send(known)
        return known.number

    def until(self, predicate: Callable[[], object]) -> None:
        """Reads what the host sends until the predicate holds."""
        while not predicate():
            if not self._inbox:
                self._inbox.extend(self._linked().receive())
            self._hear(self._inbox.pop(0))

    def until_asked(self, count: int) -> list[StepOnRecord]:
        """Waits until the present host has asked for so many new steps in all."""
        self.until(lambda: len(self.asked) >= count)
        return self.asked

    def _hear(self, message: Any) -> None:
        match message:
            case Lease():
                self._linked().send(Leased(self._next, self._lease))
                self._next += self._lease
            case Define():
                self._numbers[message.number] = self._define(message)
            case Steps():
                self.frames.append(len(message.rows))
                self._take(message.rows, {term.step: term for term in message.terms})
            case Withdraw():
                for run, id in message.rows:
                    self.withdrawn.append(id)
                    self._end(self.runs[run], id)
            case More():
                pass  # all of the history is on its way
            case Finish() | Block():
                self.runs[message.run].end = message
            case _:
                raise AssertionError(f"a host sent {message}")

    def _take(self, rows: list[Any], terms: dict[int, Term]) -> None:
        """Writes down what a host's runs ask for."""
        known = {message.number: message for message in self.defines.values()}
        for id, run, function, scope, occurrence, mark, args in rows:
            told, term = known[self._numbers[function]], terms.get(id)
            step = StepOnRecord(id, told.number, scope, occurrence, mark, args, name=told.name)
            if term is not None:
                step.topic, step.due = term.topic, self.now + term.after if term.after else term.at
            assert id not in self.runs[run].steps
            self.runs[run].steps[id] = step
            self.asked.append(step)
            self.tape.append(("asked", id))
            if self.obeys and told.executor == SUPERVISOR and (told.name == PUBLISH or told.name.startswith(PATCHED)):
                self.complete(step, id=run)

    def _end(self, run: RunOnRecord, id: int) -> None:
        """A run does not want a step any more."""
        step = run.steps[id]
        if self.obeys and not step.seq:
            self.commit([(step, CANCELLED, failure(errors.Cancelled("cancelled")))], id=run.id)

    def execute(self, step: StepOnRecord) -> tuple[int, bytes]:
        """Runs a step's body here; what the supervisor itself ends has none, and a timer is due."""
        if step.name.startswith("dq:"):
            self.now = max(self.now, step.due)
            return COMPLETED, self.codec.dumps(None, f"s{step.id}")
        told = next(message for message in self.defines.values() if message.number == step.function)
        body = functions.resolve(told.name, told.code)
        args, kwargs = self.codec.loads(step.args)
        self.bodies += 1
        try:
            value = body(*args, **kwargs)
            result = asyncio.run(value) if asyncio.iscoroutine(value) else value
            return COMPLETED, self.codec.dumps(result, f"s{step.id}")
        except Exception as error:
            return FAILED, self.codec.failure(error)

    def complete(self, *steps: StepOnRecord, id: int = 7, tell: bool = True) -> None:
        """Runs bodies, commits their results in this order, and tells the host of them in one frame."""
        self.commit([(step, *self.execute(step)) for step in steps], id=id, tell=tell)

    def commit(self, results: list[tuple[StepOnRecord, int, bytes]], *, id: int = 7, tell: bool = True) -> None:
        """Records results in this order."""
        run = self.runs[id]
        rows: list[tuple[int, int, int, int, bytes, int]] = []
        for step, status, payload in results:
            run.seq += 1
            self.now += 1
            step.seq, step.status, step.payload, step.at = run.seq, status, payload, self.now
            rows.append((run.id, step.id, step.seq, status, payload, step.at))
            self.tape.append(("ended", step.id))
        if tell:
            self._told += 1
            self._linked().send(Deliver(rows))

    def signal(self, name: str, value: Any = None, *, id: int = 7) -> None:
        """Gives a signal to the oldest wait for it, which must be there."""
        step = next(step for step in self.pending(id) if step.name == WAIT_SIGNAL and step.topic == name)
        self.commit([(step, COMPLETED, self.codec.dumps(value, "g1"))], id=id)

    def time_out(self, step: StepOnRecord, *, id: int = 7) -> None:
        """No signal has come to this wait in time."""
        self.now = max(self.now, step.due)
        self.commit([(step, FAILED, failure(errors.SignalTimeout(f"no signal {step.topic!r}")))], id=id)

    def cancel(self, cause: str = "it was cancelled", *, id: int = 7) -> None:
        """Asks a run to end."""
        run = self.runs[id]
        run.seq += 1
        self.now += 1
        run.cancel = (run.seq, self.now, cause)
        self._linked().send(Deliver([(id, 0, run.seq, CANCELLED, cause.encode(), self.now)]))

    def forget(self, id: int = 7) -> None:
        """Takes a run away from its host."""
        self._linked().send(Forget(id))

    def pending(self, id: int = 7) -> list[StepOnRecord]:
        """Steps on record without a result, in the order in which they were asked for."""
        return [step for step in self.runs[id].steps.values() if not step.seq]

    def ready(self, id: int = 7) -> list[StepOnRecord]:
        """What can be ended next: all that has a body, or else the timer that is due first."""
        pending = [step for step in self.pending(id) if step.name != WAIT_SIGNAL]
        timers = sorted([step for step in pending if step.name == SLEEP], key=lambda step: step.due)
        return [step for step in pending if step.name != SLEEP] or timers[:1]

    def finish(self, id: int = 7) -> Any:
        """Completes steps as they are asked for until the run has ended; its result, or raises its exception."""
        run = self.runs[id]
        while run.end is None:
            ready = self.ready(id)
            if ready and ready[0].name == SLEEP:
                self.rest()
                ready = self.ready(id)
            if ready and run.end is None:
                self.complete(*ready, id=id)
            else:
                self.until(lambda: run.end is not None or self.ready(id))
        return self.result(id)

    def rest(self) -> None:
        """Waits until the host has heard all, and its runs have done all that they can: another run tells."""
        told = -1
        while told != self._told:  # what is withdrawn meanwhile ends, and is told to the host
            told = self._told
            self._rests += 1
            id = (1 << 50) + self._rests
            self.start(_rests, id=id)
            self.until(lambda: self.runs[id].end is not None)  # noqa: B023
            del self.runs[id]

    def result(self, id: int = 7) -> Any:
        """What an ended run came to."""
        end = self.runs[id].end
        assert isinstance(end, Finish), end
        if end.state == "completed":
            return self.codec.loads(end.payload)
        raise self.codec.restore(end.payload)

    def blocked(self, id: int = 7) -> str:
        """Waits until the run is blocked, and returns the reason."""
        run = self.runs[id]
        self.until(lambda: run.end is not None)
        assert isinstance(run.end, Block), run.end
        return run.end.reason

    def _linked(self) -> Link:
        assert self._link is not None, "no host is open"
        return self._link


@workflow
def _rests() -> None:
    """A run that ends at once."""


def failure(error: errors.DqError) -> bytes:
    """A failure that a supervisor has found."""
    told = Failure(f"dq.errors.{type(error).__name__}", str(error), "", pickle.dumps(error))
    return seal(FAILURE, msgspec.msgpack.encode(told))


def crew(folder: Path, **options: Any) -> Iterator[Crew]:
    """For a fixture: a crew with an open host, closed at the end."""
    os.makedirs(folder, exist_ok=True)
    made = Crew(folder, **options).open()
    yield made
    if made._link is not None:
        made.close()
