"""The thread of a connection: sends what users' threads have put down, and ends futures with what comes back."""

from __future__ import annotations

import logging
import os
import random
import select
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dq import errors
from dq.client.accounts import Accounts, Entry
from dq.client.ask import Ask
from dq.client.launcher import Launcher, revive
from dq.client.wire import Wire
from dq.executor import frames
from dq.executor.frames import BadFrame
from dq.executor.link import Closed

if TYPE_CHECKING:
    from dq.client.connection import Connection

log = logging.getLogger("dq")

CHUNK = 512  # rows in one frame
CHUNK_BYTES = 1 << 20
FEW_ROWS = 128  # rows that wait for company while
MANY_FRAMES = 2  # as many frames are on their way
UNACKED_MAX = 8 << 20  # bytes that are not known to be on disk
OPEN_MAX = 1 << 19  # steps without a result
GREET_WAIT = 30.0  # seconds for the answer to Hello
TRIES = 20  # supervisors in a row that get nothing done, before the connection is given up
HOLD_OFF = 1.0  # seconds that whoever keeps a supervisor has to bring it back

Row = tuple[int, Entry, int, bytes]


class _GivenUp(Exception):
    """Nobody waits for this connection any more."""


class Pump:
    """See the module. Everything here is its own thread's, but for the attributes below, which others may read.

    Attributes:
        accounts: what is open.
        full: whether too much is open.
        turn: goes up with every round of the loop.
        supervisor: its pid.
        leaving: whether it has said goodbye.
        stops: whether the supervisor stops because of that.
        ended: whether the thread is over.
        error: why, unless it was meant to be.
    """

    def __init__(self, line: Connection, launcher: Launcher, hello: frames.Hello, wake_fd: int) -> None:
        self.accounts = Accounts(line.codec)
        self.full = self.leaving = self.stops = self.ended = False
        self.error: errors.DqError | None = None
        self.turn = 0
        self.supervisor = 0
        self._line = line
        self._launcher = launcher
        self._hello = hello
        self._wake_fd = wake_fd
        self._wire: Wire | None = None
        self._inbox: deque[Any] = deque()
        self._defined = 0  # functions that this supervisor knows
        self._tries = 0  # supervisors in a row that got nothing done
        self._given_up = False
        books = self.accounts
        self._handlers: dict[type, Callable[[Any], None]] = {
            frames.Results: books.on_results, frames.Acked: books.on_acked, frames.Ended: books.on_ended,
            frames.CancelDone: books.on_cancelled, frames.Refused: books.on_refused, frames.Leased: self._on_leased,
            frames.Farewell: self._on_farewell, frames.Notice: self._on_notice,
        }  # fmt: skip

    def open(self) -> None:
        """Connects for the first time, in the thread of whoever opens the connection."""
        self._connect(0.0, time.sleep, patient=False)

    def run(self) -> None:
        """The thread."""
        error: errors.DqError | None = None
        try:
            while not self.ended:
                try:
                    self._serve()
                except (Closed, BadFrame) as lost:
                    if self.leaving:
                        break
                    self._reconnect(lost)
        except _GivenUp:
            pass
        except errors.DqError as trouble:
            error = trouble
        except BaseException as trouble:
            log.exception("the connection to the supervisor broke")
            error = errors.SupervisorLost(f"the connection to the supervisor broke: {trouble!r}")
        finally:
            self._end(error)

    def _serve(self) -> None:
        """One supervisor's time."""
        line, wire = self._line, self._wire
        assert wire is not None
        while not self.ended:
            self.turn += 1
            self._flush(wire)
            while self._inbox:
                self._dispatch(self._inbox.popleft())
            self._regulate()
            if line.leaves and not (line.rows or line.asks) and self.accounts.is_empty():
                self._say_bye(wire, frames.Bye(now=False))
            wire.push()
            holds = self._holds()
            line.asleep = not holds  # then only who is held at the gate wakes this thread
            if self._given_up:
                raise _GivenUp
            if not ((line.rows and not holds) or line.asks or self.ended):  # what comes later finds the flag up
                wire.sleep(None)
                self._inbox.extend(wire.read())
            line.asleep = False

    def _end(self, error: errors.DqError | None) -> None:
        line = self._line
        self.error = error
        self.ended = line.closed = line.gate = True
        line.asleep = False
        if self._wire is not None:
            self._wire.close()
        while line.rows:
            id, entry, _, _ = line.rows.popleft()
            self.accounts.pending[id] = entry
        self.accounts.fail_steps(
            error
            or errors.SupervisorLost(
                "the engine was closed before this step had a result; the step is on record, and runs when the next "
                "engine or `dq up` works on the file"
            )
        )
        self.refuse()
        self._notify()

    def refuse(self) -> None:
        """Fails all questions, since nobody will answer them."""
        error = self.error or RuntimeError("the engine is closed")
        asks = self.accounts.asks()
        while self._line.asks:
            message = self._line.asks.popleft()
            if isinstance(message, Ask):
                asks.append(message)
        for ask in asks:
            if not ask.done():
                ask.fail(error)

    def nested(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Waits in the pump's own thread, for a callback that asks something. Results wait for their turn."""
        wire = self._wire
        assert wire is not None
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self._flush(wire)
            for _ in range(len(self._inbox)):
                message = self._inbox.popleft()
                if isinstance(message, frames.Results):
                    self._inbox.append(message)
                else:
                    self._dispatch(message)
            if ready():
                return True
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            try:
                wire.push()
                wire.sleep(left)
                self._inbox.extend(wire.read())
            except (Closed, BadFrame) as lost:
                raise errors.SupervisorLost("the supervisor was lost while a callback asked it something") from lost

    def give_up(self) -> None:
        """From any thread: ends the thread without more ado."""
        self._given_up = True
        self._line.wake()

    def abandon(self) -> None:
        """In a forked process, where the thread does not exist."""
        self.ended = True
        if self._wire is not None:
            self._wire.close()

    def _flush(self, wire: Wire) -> None:
        """Sends what users' threads have put down: rows first, since a question may be about them."""
        line = self._line
        asks = [line.asks.popleft() for _ in range(len(line.asks))]
        if self._holds() and not asks:
            return
        while line.rows:
            self._submit(wire, min(len(line.rows), CHUNK))
        for asked in asks:
            if isinstance(asked, Ask):
                self._define(wire)
                wire.put([self.accounts.book(asked)])
            elif isinstance(asked, frames.Bye):
                self._say_bye(wire, asked)
            else:
                wire.send(asked)

    def _holds(self) -> bool:
        """Whether a few rows wait: the next acknowledgement is near, and until then there may be more for one frame."""
        return len(self.accounts.outbox) >= MANY_FRAMES and len(self._line.rows) < FEW_ROWS and not self._line.heavy

    def _submit(self, wire: Wire, count: int) -> None:
        line, books = self._line, self.accounts
        take = line.rows.popleft
        heavy, line.heavy = line.heavy, 0
        ids, entries, numbers, payloads = zip(*[take() for _ in range(count)], strict=True)
        books.pending.update(zip(ids, entries, strict=True))
        records = list(zip(ids, numbers, payloads, strict=True))
        records.sort()
        self._define(wire)
        simple = not heavy and records[-1][0] - records[0][0] == count - 1
        terms = [line.terms.pop(id) for id in ids if id in line.terms] if line.terms else []
        wire.put([books.outbox.submit(part, terms) for part in ([records] if simple else _split(records))])

    def _define(self, wire: Wire) -> None:
        """Introduces the functions that the supervisor does not know yet."""
        known = self._line.table.frames
        if self._defined < len(known):
            fresh = known[self._defined :]
            self._defined += len(fresh)
            wire.put(fresh)

    def _say_bye(self, wire: Wire, bye: frames.Bye) -> None:
        if not self.leaving:
            self.leaving = True
            wire.send(bye)

    def _regulate(self) -> None:
        """Opens and shuts the gate for those who submit, and wakes them."""
        size, count = self.accounts.outbox.size, len(self.accounts.pending)
        if self.full:
            self.full = size > UNACKED_MAX // 2 or count > OPEN_MAX * 7 // 8
        else:
            self.full = size > UNACKED_MAX or count > OPEN_MAX
        self._line.gate = self.full or self._line.closed
        self._notify()

    def _notify(self) -> None:
        if self._line.waiting:
            with self._line.changed:
                self._line.changed.notify_all()

    def _dispatch(self, message: Any) -> None:
        handler = self._handlers.get(type(message))
        if handler is None and hasattr(message, "ticket"):
            handler = self.accounts.on_answer
        if handler is None:
            raise BadFrame(f"the supervisor sent {type(message).__name__}, which has no place here")
        if self._tries and type(message) is not frames.Notice:
            self._tries = 0  # this supervisor gets something done
        handler(message)

    def _on_leased(self, message: frames.Leased) -> None:
        self._line.blocks.append(range(message.first, message.first + message.count))

    def _on_notice(self, message: frames.Notice) -> None:
        """A supervisor that is a child has written it on this process's standard error already."""
        mine = self._launcher.started == self.supervisor
        log.log(logging.DEBUG if mine else logging.WARNING, "%s", message.text)

    def _on_farewell(self, message: frames.Farewell) -> None:
        self.stops = message.stops
        self.ended = True

    def _reconnect(self, lost: Exception) -> None:
        """Finds or starts a successor and tells it what is open. Raises DqError, _GivenUp."""
        assert self._wire is not None
        self._wire.close()
        mine = self._launcher.started == self.supervisor
        log.debug("the supervisor %d is lost: %s", self.supervisor, lost)
        self._pause(_delay(self._tries))
        # One that brings no workers leaves the start to those that do.
        self._connect(0.0 if mine and self._launcher.works else HOLD_OFF, self._pause, patient=True)
        self._define(self._wire)
        self._wire.put(self.accounts.again())
        self._notify()

    def _connect(self, hold_off: float, pause: Callable[[float], None], *, patient: bool) -> None:
        """Finds a supervisor that answers, or starts one, however often that takes within reason."""
        told = False
        while True:
            self._tries += 1
            if self._tries > TRIES:
                raise errors.SupervisorLost(f"{self._launcher.db}: {TRIES} supervisors in a row were lost at once")
            try:
                self._greet(hold_off, pause)
                return
            except errors.DiskFull as error:
                if not patient:
                    raise
                self._tries = min(self._tries, TRIES // 2)  # a full disk is no fault of theirs, and may last
                if not told:
                    log.warning("%s dq tries again to start its supervisor until there is room.", error)
                    told = True
            except (errors.DatabaseInUse, errors.SupervisorLost):
                if not patient or self._tries == TRIES:
                    raise
            except (Closed, BadFrame, OSError) as error:
                log.debug("a supervisor died, or was on its way out, as it was found: %s", error)
            pause(_delay(self._tries))
            hold_off = 0.0

    def _greet(self, hold_off: float, pause: Callable[[float], None]) -> None:
        wire = Wire(self._launcher.connect(hold_off, pause), self._wake_fd)
        try:
            messages = wire.greet(self._hello, GREET_WAIT)
            welcome = messages[0]
            if isinstance(welcome, frames.Refused):
                raise revive(welcome.error, welcome.text)
            if not isinstance(welcome, frames.Welcome):
                raise BadFrame(f"the supervisor's first word was {type(welcome).__name__}")
            if self._launcher.works and not welcome.works:
                raise Closed("it has no workers, and makes room for one that has")
        except BaseException:
            wire.close()
            raise
        self._wire = wire
        self._inbox.extend(messages[1:])
        self._defined = 0
        self.supervisor = welcome.pid
        self._line.blocks.append(range(welcome.first, welcome.first + welcome.count))

    def _pause(self, seconds: float) -> None:
        """Waits, unless nobody waits for this connection any more."""
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        until = time.monotonic() + seconds
        while not self._given_up and (left := until - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                os.eventfd_read(self._wake_fd)
        if self._given_up:
            raise _GivenUp


def _delay(tries: int) -> float:
    """Seconds before the next supervisor, after `tries` that got nothing done; not the same for all who lost one."""
    return min(2.0, 0.05 * 2 ** (tries - 1)) * random.uniform(0.5, 1.0) if tries > 0 else 0.0


def _split(records: list[tuple[int, int, bytes]]) -> list[list[tuple[int, int, bytes]]]:
    """Cuts rows where their ids are not consecutive, and where a frame would become too large."""
    parts: list[list[tuple[int, int, bytes]]] = []
    size = CHUNK_BYTES
    for record in records:
        if size >= CHUNK_BYTES or parts[-1][-1][0] + 1 != record[0]:
            parts.append([])
            size = 0
        parts[-1].append(record)
        size += len(record[2])
    return parts
