"""A supervisor that a test plays by hand: it listens on the real socket, and its file is a dictionary."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dq.client.connection import Connection
from dq.client.launcher import Launcher
from dq.client.steps import StepFuture
from dq.executor import frames, functions
from dq.executor.codec import Codec
from dq.executor.link import Closed, Link
from dq.model.states import CANCELLED, COMPLETED, FAILED
from tests.waiting import wait_until

M = TypeVar("M")

CONTEXT = frames.Context("python", __file__, "/", (), "")
STEPS = (frames.Submit, frames.Resubmit)


class Record:
    """What outlives a supervisor: the file."""

    def __init__(self) -> None:
        self.next_id = 1
        self.steps: dict[int, tuple[frames.Define, bytes]] = {}
        self.results: dict[int, tuple[int, bytes]] = {}
        self.runs: dict[str, frames.Start] = {}
        self.ended: dict[int, frames.Ended] = {}
        self.bodies: list[int] = []  # ids in the order in which their bodies ran


class Standin:
    """Serves one client after the other.

    Attributes:
        heard: all messages, in order.
        acks: whether submissions are acknowledged.
        works: whether bodies are run.
        replies: a function for each kind of message, in place of what this class would do.
    """

    def __init__(self, db: Path, record: Record | None = None, *, acks: bool = True, works: bool = True) -> None:
        self.record = record or Record()
        self.heard: list[Any] = []
        self.acks = acks
        self.works = works
        self.block = 1 << 16
        self.replies: dict[type, Callable[[Any], None]] = {}
        self.defined: dict[int, frames.Define] = {}
        self._codec = Codec(f"{db}.blobs")
        self._link: Link | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = f"{db}.sock"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        folder = os.open(os.path.dirname(self._path), os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(self._path)}")
        os.close(folder)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, name="standin", daemon=True)
        self._thread.start()

    def die(self) -> None:
        """Ends as abruptly as a process that is killed."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)

    def drop(self) -> None:
        """Cuts the connection and goes on listening."""
        assert self._link is not None
        self._link.sock.shutdown(socket.SHUT_RDWR)

    def of(self, *kinds: type[M]) -> list[M]:
        """What was heard of some kinds."""
        return [message for message in list(self.heard) if isinstance(message, kinds)]

    def wait_for(self, *kinds: type[M], count: int = 1) -> list[M]:
        wait_until(lambda: len(self.of(*kinds)) >= count, what=f"{count} of {kinds}")
        return self.of(*kinds)

    def ids(self) -> list[int]:
        """The steps that were submitted here, in order."""
        return [row[0] for message in self.of(*STEPS) for row in message.rows]  # type: ignore[attr-defined]

    def send(self, message: frames.Message) -> None:
        assert self._link is not None
        with contextlib.suppress(Closed, OSError):
            self._link.send(message)

    def garble(self) -> None:
        assert self._link is not None
        self._link.send_bytes(b"\x03\x00\x00\x00abc")

    def lease(self) -> tuple[int, int]:
        first = self.record.next_id
        self.record.next_id += self.block
        return first, self.block

    def work(self) -> None:
        """Runs the bodies of all steps that have no result, and sends what comes out."""
        open_ids = [id for id in self.record.steps if id not in self.record.results]
        for id in open_ids:
            self._run(id)
        self.send_results(open_ids)

    def send_results(self, ids: list[int]) -> None:
        rows = [(id, *self.record.results[id], 0, 0) for id in ids if id in self.record.results]
        self.send(frames.Results(1, rows))

    def _run(self, id: int) -> None:
        define, payload = self.record.steps[id]
        self.record.bodies.append(id)
        try:
            args, kwargs = self._codec.loads(payload)
            value = functions.resolve(define.name, define.code)(*args, **kwargs)
            self.record.results[id] = COMPLETED, self._codec.dumps(value, f"s{id}")
        except Exception as error:
            self.record.results[id] = FAILED, self._codec.failure(error)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._link = Link(sock)
            self.defined.clear()
            with contextlib.suppress(Closed, OSError):
                while True:
                    for message in self._link.receive():
                        self._hear(message)
            sock.close()

    def _hear(self, message: Any) -> None:
        self.heard.append(message)
        reply = self.replies.get(type(message)) or getattr(self, f"_{type(message).__name__.lower()}", None)
        if reply is not None:
            reply(message)

    def _hello(self, message: frames.Hello) -> None:
        self.send(frames.Welcome(1, os.getpid(), *self.lease()))

    def _lease(self, message: frames.Lease) -> None:
        self.send(frames.Leased(*self.lease()))

    def _define(self, message: frames.Define) -> None:
        self.defined[message.number] = message

    def _submit(self, message: frames.Submit | frames.Resubmit) -> None:
        for id, number, args in message.rows:
            self.record.steps.setdefault(id, (self.defined[number], args))
        if self.acks:
            self.send(frames.Acked(1))
        if self.works:
            self.work()

    def _resubmit(self, message: frames.Resubmit) -> None:
        self._submit(message)
        self.send_results([row[0] for row in message.rows])

    def _adopt(self, message: frames.Adopt) -> None:
        self.send_results(message.steps)
        for run in message.runs:
            self._watch(frames.Watch(run))

    def _start(self, message: frames.Start) -> None:
        known = self.record.runs.setdefault(message.name, message)
        if self.acks:
            self.send(frames.Acked(1))
        if known.fingerprint != message.fingerprint:
            self.send(frames.Clash(message.ticket, self.defined[known.function].name, known.args))
        else:
            self.send(frames.Started(message.ticket, known.id, known is message))

    def _watch(self, message: frames.Watch) -> None:
        if message.run in self.record.ended:
            self.send(self.record.ended[message.run])

    def _find(self, message: frames.Find) -> None:
        run = self.record.runs.get(message.name)
        if run is None:
            self.send(frames.Record(message.ticket, 0, "", "", "", 0, 0))
        else:
            state = self.record.ended[run.id].state if run.id in self.record.ended else "running"
            self.send(frames.Record(message.ticket, run.id, self.defined[run.function].name, state, "", 3, 7))

    def _cancel(self, message: frames.Cancel) -> None:
        gone = [id for id in message.steps if id in self.record.steps and id not in self.record.results]
        self.record.results.update(dict.fromkeys(gone, (CANCELLED, b"")))
        self.send(frames.CancelDone(message.ticket, gone))

    def _census(self, message: frames.Census) -> None:
        self.send(frames.Crew(message.ticket, 1, [("worker", 123, 0, 5, 0, 0)], 2, 1))

    def _flush(self, message: frames.Flush) -> None:
        self.send(frames.Flushed(message.ticket))

    def _bye(self, message: frames.Bye) -> None:
        self.send(frames.Farewell(False))


@contextlib.contextmanager
def connected(db: Path) -> Iterator[Connection]:
    """A connection that never starts a supervisor of its own."""
    line = Connection(Launcher(str(db), None), Codec(f"{db}.blobs"), CONTEXT)
    try:
        yield line
    finally:
        if not line.is_ended:
            line.close()


def submit(line: Connection, function: Any, *args: Any) -> StepFuture[Any]:
    return line.submit(*line.table.call(function, args, {}))
