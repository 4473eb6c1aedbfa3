"""A supervisor that a test plays by hand: it keeps the record in lists and runs the steps' bodies itself."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs

from dq.executor import functions, slots
from dq.executor.codec import Codec
from dq.executor.frames import Assign, Block, Define, Deliver, Finish, History, Lease, Leased, More, Steps
from dq.executor.link import Closed, Link
from dq.flow.decorators import Workflow
from dq.flow.host import Host
from dq.flow.registry import define
from dq.model.states import COMPLETED, FAILED

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


class Crew:
    """The record and, while `host` is open, one host in a thread of its own."""

    def __init__(self, folder: Path, *, lease: int = 1000) -> None:
        self.codec = Codec(str(folder / "blobs"))
        self.runs: dict[int, RunOnRecord] = {}
        self.defines: dict[bytes, Define] = {}  # by digest, with the file's numbers
        self.asked: list[StepOnRecord] = []  # by the present host, in order
        self.frames: list[int] = []  # rows of each Steps frame
        self.bodies = 0  # bodies that ran
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
        try:
            Host(link, slots.SlotWriter(memory, 0), self.codec).serve()
        except Closed:
            pass
        finally:
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
        link.send(Assign(run.id, run.name, run.function, run.args, NOW))
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
                for id, run, function, scope, occurrence, mark, args in message.rows:
                    step = StepOnRecord(id, self._numbers[function], scope, occurrence, mark, args)
                    assert id not in self.runs[run].steps
                    self.runs[run].steps[id] = step
                    self.asked.append(step)
            case More():
                pass  # all of the history is on its way
            case Finish() | Block():
                self.runs[message.run].end = message
            case _:
                raise AssertionError(f"a host sent {message}")

    def execute(self, step: StepOnRecord) -> tuple[int, bytes]:
        """Runs a step's body here."""
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
            step.seq, step.status, step.payload, step.at = run.seq, status, payload, NOW + run.seq
            rows.append((run.id, step.id, step.seq, status, payload, step.at))
        if tell:
            self._linked().send(Deliver(rows))

    def pending(self, id: int = 7) -> list[StepOnRecord]:
        """Steps on record without a result."""
        return [step for step in self.runs[id].steps.values() if not step.seq]

    def finish(self, id: int = 7) -> Any:
        """Completes steps as they are asked for until the run has ended; its result, or raises its exception."""
        run = self.runs[id]
        while run.end is None:
            pending = self.pending(id)
            if pending:
                self.complete(*pending, id=id)
            else:
                self.until(lambda: run.end is not None or self.pending(id))
        return self.result(id)

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


def crew(folder: Path, **options: Any) -> Iterator[Crew]:
    """For a fixture: a crew with an open host, closed at the end."""
    os.makedirs(folder, exist_ok=True)
    made = Crew(folder, **options).open()
    yield made
    if made._link is not None:
        made.close()
