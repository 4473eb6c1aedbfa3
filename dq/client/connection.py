"""A client's connection to the supervisor, as its users see it; what happens in its thread is in `pump`.

    users' threads ──rows, asks──►  pump (one daemon thread)  ──frames──►  supervisor
                   ◄────futures───                            ◄──────────

Users' threads only append to two deques, which is atomic, so Ctrl-C in the middle of a call can't break anything. All
else is the pump's own. The pump sleeps in poll and is woken only when it does.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast
from zlib import crc32

from dq.client.ask import Ask
from dq.client.launcher import Launcher
from dq.client.pump import Pump, Row
from dq.client.steps import Ordered, StepFuture
from dq.client.table import Table
from dq.errors import DqError
from dq.executor.codec import Codec
from dq.executor.frames import VERSION, Bye, Cancel, Census, Context, Crew, Flush, Hello, Lease, Message, Term, Watch
from dq.model.payload import HEAD, INLINE_MAX, PICKLE

if TYPE_CHECKING:
    from dq.flow.settings import Settings

HIGH = 1024  # rows that may wait for the pump
HEAVY = 4 << 20  # bytes of large rows that may wait for the pump
LARGE = 4096  # bytes; smaller rows are not counted
CANCEL_ROWS = 1 << 16  # steps in one frame
_STALL = 0.2  # seconds

_pack_head = HEAD.pack
_dumps = pickle.dumps
_all: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection:
    """Sends steps and questions; finds or starts a supervisor whenever there is none.

    Attributes:
        rows: (id, entry, function number, arguments) of steps to send; for the pump.
        terms: what the steps in `rows` wait for besides a worker, by id.
        asks: what else is to be sent.
        blocks: ids that nobody uses yet.
        gate: whether `submit` must look closer before it takes a row.
        asleep: whether the pump must be woken to see what was appended.
        heavy: bytes of large rows that were appended since the pump last looked.
        closed: whether new work is refused.
        leaves: whether the pump says goodbye by itself when nothing is open any more.
        drains: whether all results are waited for when the interpreter ends.
    """

    def __init__(self, launcher: Launcher, codec: Codec, context: Context) -> None:
        """Connects, and starts a supervisor if there is none. Raises StoreError, SupervisorLost."""
        self.codec = codec
        self.table = Table(codec.introduce)
        self.rows: deque[Row] = deque()
        self.terms: dict[int, Term] = {}
        self.asks: deque[Ask | Message] = deque()
        self.blocks: deque[range] = deque()
        self.gate = self.asleep = self.closed = self.leaves = self.drains = False
        self.heavy = 0
        self.changed = threading.Condition()
        self.waiting = 0  # threads that wait for `changed`
        self._pid = os.getpid()
        self._nameless = not context.script  # what is pickled by a name of `__main__` means nothing elsewhere
        self._tickets = itertools.count(1)
        self._ids = iter(range(0))
        self._ids_lock = threading.Lock()
        self._closing = threading.Lock()
        self._launcher = launcher
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        hello = Hello(VERSION, self._pid, secrets.token_bytes(16), context, launcher.works, codec.mark)
        self._pump = Pump(self, launcher, hello, self._wake_fd)
        self._pump.open()
        self._thread = threading.Thread(target=self._pump.run, name="dq-client", daemon=True)
        self._thread.start()
        _all.add(self)

    def __del__(self) -> None:
        if hasattr(self, "_wake_fd"):  # here and not in the pump, since a thread may be about to write to it
            os.close(self._wake_fd)

    def submit(
        self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any], settings: Settings | None = None
    ) -> StepFuture[Any]:
        """Takes a step on. Waits while too much is not on disk yet.

        Raises:
            NotPicklable: The arguments can't travel.
            RuntimeError: The connection is closed, or belongs to the process that forked this one.
            SupervisorLost: There is no supervisor and there will be none.
        """
        future: StepFuture[Any] = StepFuture()
        future._line = self
        future._id = self.send(number, args, kwargs, future, settings)
        return future

    def send(
        self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any], entry: StepFuture[Any] | Ordered,
        settings: Settings | None = None,
    ) -> int:  # fmt: skip
        """Takes a step on whose result goes to `entry`; returns its id. Raises like `submit`."""
        if self.gate or len(self.rows) >= HIGH or self.heavy > HEAVY:
            self._throttle()
        try:
            data = _dumps((args, kwargs), 5)
        except Exception:  # noqa: BLE001 -- the codec finds another way, or the reason
            data = b""
        try:
            id = next(self._ids)
        except StopIteration:
            id = self.next_id()
        if not data or len(data) > LARGE or (self._nameless and b"__main__" in data):
            payload = self._payload(data, args, kwargs, id)
        else:
            payload = _pack_head(PICKLE, crc32(data)) + data
        if settings is not None:
            self.terms[id] = settings.term(id, args, kwargs)
        self.rows.append((id, entry, number, payload))
        if self.asleep:
            self.wake()
        return id

    def _payload(self, data: bytes, args: tuple[Any, ...], kwargs: dict[str, Any], id: int) -> bytes:
        """The arguments of a step for which the short way does not do."""
        if data and len(data) <= INLINE_MAX and not (self._nameless and b"__main__" in data):
            payload = _pack_head(PICKLE, crc32(data)) + data
        else:
            payload = self.arguments(args, kwargs, id)
        self.heavy += len(payload)
        return payload

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any], id: int) -> bytes:
        """The payload of a call's arguments. Raises NotPicklable, OSError."""
        packed = self.codec.pack((args, kwargs), "arguments")
        return packed if isinstance(packed, bytes) else self.codec.place(packed, f"a{id}")

    def next_id(self) -> int:
        """An id that nobody else has or will have."""
        while True:
            with self._ids_lock:
                id = next(self._ids, None)
                if id is not None:
                    return id
                empty = not self.blocks
                if not empty:
                    self._ids = iter(self.blocks.popleft())
                if not self.blocks:
                    self._post(Lease())
            if empty:
                self._wait_for(lambda: bool(self.blocks))

    def _throttle(self) -> None:
        """Holds a thread that submits faster than the disk writes.

        The pump's own thread, where callbacks run, is never held. Nor is one that a callback may be waiting for.
        """
        self._check()
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown: the engine is closed")
        if threading.current_thread() is self._thread:
            return
        turn = -1
        while self._is_full():
            if turn == self._pump.turn and self._pump.accounts.in_callbacks:
                return
            turn = self._pump.turn
            with self.changed:
                self.waiting += 1
                try:
                    if self._is_full():
                        self.wake()
                        self.changed.wait(_STALL)
                finally:
                    self.waiting -= 1
            self._check()

    def _is_full(self) -> bool:
        return self._pump.full or len(self.rows) >= HIGH or self.heavy > HEAVY

    def cancel(self, future: StepFuture[Any]) -> bool:
        """Cancels a step unless a worker has it."""
        self.check_process()
        try:
            self.ask(lambda ticket: Cancel(ticket, [future._id]))
        except (DqError, RuntimeError):
            pass  # it can't be had, so it was not cancelled
        return future.cancelled()

    def cancel_all(self) -> None:
        """Cancels every step that no worker has."""
        self.flush()
        ids = list(self._pump.accounts.pending)
        for at in range(0, len(ids), CANCEL_ROWS):
            self.ask(partial(_cancel, ids[at : at + CANCEL_ROWS]))

    def withdraw(self, ids: list[int]) -> None:
        """Cancels steps whose results nobody wants any more, without waiting for the answer."""
        if ids:
            ticket = next(self._tickets)
            with contextlib.suppress(RuntimeError, DqError):  # nobody is there who could run them now
                self._post(Ask(Cancel(ticket, ids), ticket))

    def ask(self, make: Callable[[int], Message], timeout: float | None = None) -> Any:
        """Sends a message with a ticket and returns the answer.

        Raises:
            TimeoutError: No answer in `timeout` seconds.
            DqError: The supervisor refuses, or there is none and there will be none.
            RuntimeError: The connection is closed, or belongs to the process that forked this one.
        """
        return self.answer(self.begin(make), timeout)

    def begin(self, make: Callable[[int], Message]) -> Ask:
        """The same without waiting; `answer` waits."""
        ticket = next(self._tickets)
        ask = Ask(make(ticket), ticket)
        self._post(ask)
        return ask

    def watch(self, run: int) -> Ask:
        """Asks to be told when a run ends or is blocked; the answer is an Ended."""
        ask = Ask(Watch(run))
        self._post(ask)
        return ask

    def answer(self, ask: Ask, timeout: float | None = None) -> Any:
        """Waits for the answer to what was asked. Raises like `ask`."""
        self.check_process()
        inside = threading.current_thread() is self._thread
        if not (self._pump.nested(ask.done, timeout) if inside else ask.wait(timeout)):
            raise TimeoutError(f"no answer within {timeout} s")
        return ask.answer()

    def flush(self) -> None:
        """Returns when everything that was submitted before is on disk. Raises like `ask`."""
        self.ask(Flush)

    def census(self) -> Crew:
        """Who is at work. Raises like `ask`."""
        return cast(Crew, self.ask(Census))

    def _post(self, message: Ask | Message) -> None:
        self._check()
        self.asks.append(message)
        if self._pump.ended:
            self._pump.refuse()
        else:
            self.wake()

    def wake(self) -> None:
        self.asleep = False
        os.eventfd_write(self._wake_fd, 1)

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        if threading.current_thread() is self._thread:
            self._pump.nested(ready)
            return
        with self.changed:
            self.waiting += 1
            try:
                while not ready():
                    self._check()
                    self.changed.wait()
            finally:
                self.waiting -= 1

    @property
    def is_mine(self) -> bool:
        """Whether this process opened the connection, and did not inherit it by a fork."""
        return os.getpid() == self._pid

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will come."""
        return self._pump.ended

    @property
    def supervisor(self) -> int:
        """The pid of the supervisor that this connection has, or had last."""
        return self._pump.supervisor

    def refuse_work(self) -> None:
        """Takes no more steps."""
        self.check_process()
        self.closed = self.gate = True

    def wait_idle(self) -> None:
        """Returns when every step has its result, or there will be none."""
        self.check_process()
        self.check_thread()
        with self.changed:
            self.waiting += 1
            try:
                while not self._pump.ended and (self.rows or self._pump.accounts.pending):
                    self.changed.wait()
            finally:
                self.waiting -= 1

    def leave(self) -> None:
        """Takes no more work, and says goodbye when all that is open has ended. Does not wait."""
        if self.is_mine and not self._pump.ended:
            self.closed = self.gate = self.leaves = True
            self.wake()

    def close(self) -> None:
        """Says goodbye when everything is on disk; if the supervisor is a child and stops with that, waits for it.

        Raises:
            DqError: Something that was submitted may not be on disk.
            KeyboardInterrupt: Ctrl-C while it waited; running steps were handed back at once.
        """
        if not self.is_mine:
            return
        self.check_thread()
        with self._closing:
            self.closed = self.gate = True
            try:
                self._say_goodbye()
                if self._pump.stops:
                    self._launcher.wait(self._pump.supervisor)
            except KeyboardInterrupt:
                self._pump.give_up()
                self._launcher.interrupt()
                raise
            finally:
                self._launcher.release()

    def _say_goodbye(self) -> None:
        try:
            if not self._pump.ended and not self._pump.leaving:
                self.flush()
        finally:
            with contextlib.suppress(RuntimeError, DqError):  # it may end at any moment
                self._post(Bye(now=False))
            self._thread.join()

    def _check(self) -> None:
        self.check_process()
        if self._pump.error is not None:
            raise self._pump.error
        if self._pump.ended:
            raise RuntimeError("the engine is closed")

    def check_process(self) -> None:
        """Raises RuntimeError in a process that was forked from the one that has the connection."""
        if not self.is_mine:
            _refuse_fork(self._pid)

    def check_thread(self) -> None:
        """Raises RuntimeError in a callback, which runs in the thread that would be waited for."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a callback can't wait for the end of all futures: it runs in the thread that ends them")

    def abandon(self) -> None:
        """In a forked process: lets go of what belongs to the parent. Locks may be held by threads that are not here."""
        self.gate = True
        self.asleep = False
        self._pump.abandon()


def _cancel(steps: list[int], ticket: int) -> Message:
    return Cancel(ticket, steps)


def _refuse_fork(pid: int) -> NoReturn:
    raise RuntimeError(
        f"this engine belongs to process {pid}, which forked this one (pid {os.getpid()}). Connections do not survive "
        "a fork; open an engine of its own here."
    )


def _after_fork() -> None:
    for connection in list(_all):
        connection.abandon()


os.register_at_fork(after_in_child=_after_fork)
