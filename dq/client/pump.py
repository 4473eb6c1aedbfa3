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
from dq.client.ask import Ask
from dq.client.launcher import Launcher, revive
from dq.client.outbox import Outbox
from dq.client.steps import Ordered, StepFuture
from dq.client.wire import Wire
from dq.executor import frames
from dq.executor.frames import BadFrame
from dq.executor.link import Closed
from dq.model.states import CANCELLED, COMPLETED

if TYPE_CHECKING:
    from dq.client.connection import Connection

log = logging.getLogger("dq")

CHUNK = 512  # rows in one frame
CHUNK_BYTES = 1 << 20
UNACKED_MAX = 8 << 20  # bytes that are not known to be on disk
OPEN_MAX = 1 << 19  # steps without a result
ADOPT_ROWS = 1 << 16
GREET_WAIT = 30.0  # seconds for the answer to Hello
TRIES = 20  # supervisors in a row that get nothing done, before the connection is given up
HOLD_OFF = 1.0  # seconds that whoever keeps a supervisor has to bring it back

Entry = StepFuture[Any] | Ordered
Row = tuple[int, Entry, int, bytes]


class _GivenUp(Exception):
    """Nobody waits for this connection any more."""


class Pump:
    """See the module. Everything here is its own thread's, but for the attributes below, which others may read.

    Attributes:
        pending: steps that were sent and have no result yet.
        full: whether too much is open.
        turn: goes up with every round of the loop.
        in_callbacks: whether futures are being ended, which runs users' callbacks.
        supervisor: its pid.
        leaving: whether it has said goodbye.
        stops: whether the supervisor stops because of that.
        ended: whether the thread is over.
        error: why, unless it was meant to be.
    """

    def __init__(self, line: Connection, launcher: Launcher, hello: frames.Hello, wake_fd: int) -> None:
        self.pending: dict[int, Entry] = {}
        self.full = self.in_callbacks = self.leaving = self.stops = self.ended = False
        self.error: errors.DqError | None = None
        self.turn = 0
        self.supervisor = 0
        self._line = line
        self._launcher = launcher
        self._hello = hello
        self._wake_fd = wake_fd
        self._wire: Wire | None = None
        self._inbox: deque[Any] = deque()
        self._outbox = Outbox()
        self._tickets: dict[int, Ask] = {}
        self._watched: dict[int, list[Ask]] = {}
        self._defined = 0  # functions that this supervisor knows
        self._tries = 0
        self._given_up = False
        self._loads = line.codec.loads
        self._handlers: dict[type, Callable[[Any], None]] = {
            frames.Results: self._on_results, frames.Acked: self._on_acked, frames.Ended: self._on_ended,
            frames.CancelDone: self._on_cancelled, frames.Leased: self._on_leased, frames.Notice: self._on_notice,
            frames.Refused: self._on_refused, frames.Farewell: self._on_farewell,
        }  # fmt: skip
        for kind in (frames.Started, frames.Clash, frames.Record, frames.Crew, frames.Flushed):
            self._handlers[kind] = self._on_answer

    # --- the thread -----------------------------------------------------------------------

    def open(self) -> None:
        """Connects for the first time, in the thread of whoever opens the connection."""
        for tries in range(1, TRIES):
            try:
                self._connect(0.0, time.sleep, patient=False)
                return
            except Closed:  # it died, or was on its way out, as it was found
                time.sleep(_backoff(tries))
        raise errors.SupervisorLost(f"{TRIES} supervisors in a row ended before they answered")

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
            if line.leaves and not self._is_busy():
                self._say_bye(frames.Bye(now=False))
            wire.push()
            line.asleep = True
            if (line.rows or line.asks or self._given_up) and not self.ended:
                line.asleep = False  # it came before the flag was up
                if self._given_up:
                    raise _GivenUp
                continue
            if not self.ended:
                wire.sleep(None)
                line.asleep = False
                self._inbox.extend(wire.read())

    def _end(self, error: errors.DqError | None) -> None:
        line = self._line
        self.error = error
        self.ended = line.closed = line.gate = True
        line.asleep = False
        if self._wire is not None:
            self._wire.close()
        lost = error or errors.SupervisorLost(
            "the engine was closed before this step had a result; the step is on record, and runs when the next engine "
            "or `dq up` works on the file"
        )
        while line.rows:
            id, entry, _, _ = line.rows.popleft()
            self.pending[id] = entry
        self.in_callbacks = True
        for entry in self.pending.values():
            try:
                entry.fail(lost)
            except BaseException:
                log.exception("a callback of a future failed")
        self.pending.clear()
        self.refuse()
        self._notify()

    def refuse(self) -> None:
        """Fails all questions, since nobody will answer them."""
        error = self.error or RuntimeError("the engine is closed")
        asks = [*self._tickets.values(), *(ask for asks in self._watched.values() for ask in asks)]
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

    def _connect(self, hold_off: float, pause: Callable[[float], None], *, patient: bool) -> None:
        """Connects, says who this is, and says again what a successor may not know."""
        sock = self._launcher.connect(hold_off, pause)
        wire = Wire(sock, self._wake_fd)
        try:
            messages = wire.greet(self._hello, GREET_WAIT)
        except TimeoutError as error:
            wire.close()
            raise Closed("the supervisor does not answer") from error
        except BaseException:
            wire.close()
            raise
        if self._wire is not None:
            self._wire.close()
        self._wire = wire
        self._inbox.clear()
        welcome = messages[0]
        if isinstance(welcome, frames.Refused):
            raise revive(welcome.error, welcome.text)
        if not isinstance(welcome, frames.Welcome):
            raise BadFrame(f"a {type(welcome).__name__} instead of a welcome")
        self.supervisor = welcome.pid
        self._line.blocks.append(range(welcome.first, welcome.first + welcome.count))
        self._inbox.extend(messages[1:])
        self._defined = 0
        if patient:
            self._say_again(wire)

    def _say_again(self, wire: Wire) -> None:
        """To a successor: all functions, what is not known to be on disk, and whose results are still wanted."""
        self._define(wire)
        wire.put(self._outbox.again())
        known = sorted(self.pending.keys() - self._outbox.steps())
        for at in range(0, len(known), ADOPT_ROWS):
            wire.send(frames.Adopt(known[at : at + ADOPT_ROWS], []))
        for run in self._watched:
            wire.send(frames.Watch(run))
        started = self._outbox.asks()
        for ask in self._tickets.values():
            if ask not in started:
                wire.send(ask.message)

    def _reconnect(self, lost: Exception) -> None:
        """Finds the successor, or starts it, however often that takes within reason."""
        log.debug("the supervisor %d is gone: %s", self.supervisor, lost)
        while True:
            self._tries += 1
            if self._tries > TRIES:
                raise errors.SupervisorLost(f"{TRIES} supervisors in a row ended at once; the last one: {lost}")
            self._pause(_backoff(self._tries))
            hold_off = 0.0 if self._launcher.owns else HOLD_OFF
            try:
                self._connect(hold_off, self._pause, patient=True)
            except (Closed, BadFrame) as again:
                lost = again
            except errors.SupervisorLost as again:
                lost = again
                if not self._launcher.starts:
                    raise
            else:
                return

    def _pause(self, seconds: float) -> None:
        """Waits, unless the connection is given up meanwhile."""
        until = time.monotonic() + seconds
        while True:
            if self._given_up:
                raise _GivenUp
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))

    def _flush(self, wire: Wire) -> None:
        """Puts what users' threads have appended on the wire."""
        line = self._line
        rows = line.rows
        while rows and not self.full:
            self._send_rows(wire, rows)
            self._regulate()
        if rows:
            return  # a question is answered after what was submitted before it
        while line.asks:
            message = line.asks.popleft()
            self._define(wire)
            if not isinstance(message, Ask):
                wire.send(message)
                self.leaving = self.leaving or isinstance(message, frames.Bye)
            elif message.is_start:
                self._tickets[message.ticket] = message
                wire.put([self._outbox.start(message)])
            elif isinstance(message.message, frames.Watch):
                self._watched.setdefault(message.message.run, []).append(message)
                wire.send(message.message)
            else:
                self._tickets[message.ticket] = message
                wire.send(message.message)

    def _send_rows(self, wire: Wire, rows: deque[Row]) -> None:
        """One frame: rows with consecutive ids, as many as there are up to a limit."""
        pending = self.pending
        part: list[tuple[int, int, bytes]] = []
        size = 0
        expected = rows[0][0]
        while rows and len(part) < CHUNK and size < CHUNK_BYTES and rows[0][0] == expected:
            id, entry, number, args = rows.popleft()
            pending[id] = entry
            part.append((id, number, args))
            size += len(args)
            expected += 1
        self._line.heavy = max(0, self._line.heavy - size)
        self._define(wire)
        wire.put([self._outbox.submit(part)])

    def _define(self, wire: Wire) -> None:
        table = self._line.table.frames
        if self._defined < len(table):
            wire.put(table[self._defined :])
            self._defined = len(table)

    def _regulate(self) -> None:
        """Holds users' threads while too much is not on disk, or open, and lets them go on."""
        self.full = self._outbox.size > UNACKED_MAX or len(self.pending) > OPEN_MAX
        self._line.gate = self.full or self._line.closed
        self._notify()

    def _notify(self) -> None:
        line = self._line
        if line.waiting:
            with line.changed:
                line.changed.notify_all()

    def _is_busy(self) -> bool:
        return bool(self.pending or self._line.rows or self._line.asks or self._tickets or len(self._outbox))

    def _say_bye(self, bye: frames.Bye) -> None:
        self.leaving = True
        self._line.leaves = False
        assert self._wire is not None
        self._wire.send(bye)

    def _dispatch(self, message: Any) -> None:
        handler = self._handlers.get(type(message))
        if handler is None:
            raise BadFrame(f"a {type(message).__name__} from the supervisor")
        handler(message)

    def _on_results(self, message: frames.Results) -> None:
        self._tries = 0
        take, loads = self.pending.pop, self._loads
        self.in_callbacks = True
        for id, status, payload, _, _ in message.rows:
            entry = take(id, None)
            if entry is None:
                continue  # it was told before, by a predecessor
            try:
                if status == COMPLETED and type(entry) is StepFuture:
                    entry.resolve(payload, loads)
                else:
                    settle(entry, id, status, payload, self._line.codec)
            except Exception:
                log.exception("a callback of a future failed")
        self.in_callbacks = False

    def _on_acked(self, message: frames.Acked) -> None:
        self._tries = 0
        self._outbox.acknowledged(message.frames)

    def _on_ended(self, message: frames.Ended) -> None:
        for ask in self._watched.pop(message.run, []):
            ask.settle(message)

    def _on_answer(self, message: Any) -> None:
        ask = self._tickets.pop(message.ticket, None)
        if ask is not None:
            ask.settle(message)

    def _on_cancelled(self, message: frames.CancelDone) -> None:
        for id in message.steps:
            entry = self.pending.pop(id, None)
            if entry is not None:
                settle(entry, id, CANCELLED, b"", self._line.codec)
        self._on_answer(message)

    def _on_leased(self, message: frames.Leased) -> None:
        self._line.blocks.append(range(message.first, message.first + message.count))

    def _on_notice(self, message: frames.Notice) -> None:
        log.warning("%s", message.text)

    def _on_refused(self, message: frames.Refused) -> None:
        ask = self._tickets.pop(message.ticket, None)
        error = revive(message.error, message.text)
        if ask is None:
            raise error
        ask.fail(error)

    def _on_farewell(self, message: frames.Farewell) -> None:
        self.stops = message.stops
        self.ended = True


def _backoff(tries: int) -> float:
    """Seconds before the next try: none at first, then jittered, up to two."""
    return 0.0 if tries == 1 else random.uniform(0.5, 1.0) * min(2.0, 0.05 * 2 ** (tries - 2))

    # --- sending --------------------------------------------------------------------------

    def _flush(self, wire: Wire) -> None:
        """Sends what users' threads have put down: rows first, since a question may be about them."""
        line = self._line
        asks = [line.asks.popleft() for _ in range(len(line.asks))]
        while line.rows:
            self._submit(wire, min(len(line.rows), CHUNK))
        for ask in asks:
            self._send(wire, ask)

    def _submit(self, wire: Wire, count: int) -> None:
        line = self._line
        take = line.rows.popleft
        heavy, line.heavy = line.heavy, 0
        ids, entries, numbers, payloads = zip(*[take() for _ in range(count)], strict=True)
        self.pending.update(zip(ids, entries, strict=True))
        records = list(zip(ids, numbers, payloads, strict=True))
        records.sort()
        self._define(wire)
        if heavy or records[-1][0] - records[0][0] != count - 1:
            parts = _split(records)
        else:
            parts = [records]
        for part in parts:
            wire.put([self._outbox.submit(part)])

    def _define(self, wire: Wire) -> None:
        """Introduces the functions that the supervisor does not know yet."""
        known = self._line.table.frames
        if self._defined < len(known):
            fresh = known[self._defined :]
            self._defined += len(fresh)
            wire.put(fresh)

    def _send(self, wire: Wire, asked: Ask | frames.Message) -> None:
        if not isinstance(asked, Ask):
            if isinstance(asked, frames.Bye):
                self._say_bye(asked)
            else:
                wire.send(asked)
            return
        message = asked.message
        if isinstance(message, frames.Watch):
            self._watched.setdefault(message.run, []).append(asked)
        else:
            self._tickets[asked.ticket] = asked
        if asked.is_start:
            self._define(wire)
            wire.put([self._outbox.start(asked)])
        else:
            wire.send(message)

    def _say_bye(self, bye: frames.Bye) -> None:
        if self._wire is not None and not self.leaving:
            self.leaving = True
            self._wire.send(bye)

    def _is_busy(self) -> bool:
        """Whether something that was submitted or asked has no answer yet."""
        line = self._line
        return bool(self.pending or line.rows or line.asks or self._tickets or self._watched or len(self._outbox))

    def _regulate(self) -> None:
        """Opens and shuts the gate for those who submit, and wakes them."""
        size, count = self._outbox.size, len(self.pending)
        if self.full:
            self.full = size > UNACKED_MAX // 2 or count > OPEN_MAX * 7 // 8
        else:
            self.full = size > UNACKED_MAX or count > OPEN_MAX
        self._line.gate = self.full or self._line.closed
        if self._line.waiting:
            self._notify()

    def _notify(self) -> None:
        with self._line.changed:
            self._line.changed.notify_all()

    # --- receiving ------------------------------------------------------------------------

    def _dispatch(self, message: Any) -> None:
        handler = self._handlers.get(type(message))
        if handler is None:
            raise BadFrame(f"the supervisor sent {type(message).__name__}, which has no place here")
        if self._tries and type(message) is not frames.Notice:
            self._tries = 0  # this supervisor gets something done
        handler(message)

    def _on_results(self, message: frames.Results) -> None:
        pop, loads = self.pending.pop, self._loads
        rows = iter(message.rows)
        self.in_callbacks = True
        while True:
            try:
                for id, status, payload, _, _ in rows:
                    entry = pop(id, None)
                    if entry.__class__ is StepFuture and status == COMPLETED:
                        entry.resolve(payload, loads)  # type: ignore[union-attr]
                    elif entry is not None:
                        self._settle(entry, id, status, payload)
                break
            except BaseException:
                log.exception("a callback of a future failed")
        self.in_callbacks = False

    def _settle(self, entry: Entry, id: int, status: int, payload: bytes) -> None:
        if isinstance(entry, Ordered):
            entry.put(id, status, payload)
        elif status == CANCELLED:
            entry.drop()
        else:
            entry.resolve(payload, self._line.codec.restore, failed=True)

    def _on_acked(self, message: frames.Acked) -> None:
        self._outbox.acknowledged(message.frames)

    def _on_answer(self, message: Any) -> None:
        ask = self._tickets.pop(message.ticket, None)
        if ask is not None:
            ask.settle(message)

    def _on_ended(self, message: frames.Ended) -> None:
        for ask in self._watched.pop(message.run, ()):
            ask.settle(message)

    def _on_cancelled(self, message: frames.CancelDone) -> None:
        self.in_callbacks = True
        for id in message.steps:
            entry = self.pending.pop(id, None)
            if entry is not None:
                try:
                    self._settle(entry, id, CANCELLED, b"")
                except BaseException:
                    log.exception("a callback of a future failed")
        self.in_callbacks = False
        self._on_answer(message)

    def _on_leased(self, message: frames.Leased) -> None:
        self._line.blocks.append(range(message.first, message.first + message.count))

    def _on_notice(self, message: frames.Notice) -> None:
        log.warning("%s", message.text)

    def _on_refused(self, message: frames.Refused) -> None:
        error = revive(message.error, message.text)
        ask = self._tickets.pop(message.ticket, None)
        if ask is not None:
            ask.fail(error)
        else:
            log.warning("the supervisor refuses something: %s", error)

    def _on_farewell(self, message: frames.Farewell) -> None:
        self.stops = message.stops
        self.ended = True

    # --- supervisors come and go ----------------------------------------------------------

    def _reconnect(self, lost: Exception) -> None:
        """Finds or starts a successor and tells it what is open. Raises DqError, _GivenUp."""
        if self._wire is not None:
            self._wire.close()
        mine = self._launcher.started == self.supervisor
        log.debug("the supervisor %d is lost: %s", self.supervisor, lost)
        if self._tries:
            self._pause(_delay(self._tries))
        self._connect(0.0 if mine else HOLD_OFF, self._pause, patient=True)
        self._restore()

    def _connect(self, hold_off: float, pause: Callable[[float], None], *, patient: bool) -> None:
        while True:
            self._tries += 1
            try:
                self._greet(hold_off, pause)
                return
            except (errors.DatabaseInUse, errors.DiskFull, errors.SupervisorLost):
                if not patient or self._tries >= TRIES:
                    raise
            except (Closed, BadFrame, OSError) as error:
                if self._tries >= TRIES:
                    raise errors.SupervisorLost(
                        f"{self._launcher.db}: {self._tries} supervisors in a row were lost at once; the last words of "
                        f"the connection: {error}"
                    ) from error
            pause(_delay(self._tries))
            hold_off = 0.0

    def _greet(self, hold_off: float, pause: Callable[[float], None]) -> None:
        wire = Wire(self._launcher.connect(hold_off, pause), self._wake_fd)
        try:
            messages = wire.greet(self._hello, GREET_WAIT)
        except BaseException:
            wire.close()
            raise
        welcome = messages[0]
        if not isinstance(welcome, frames.Welcome):
            wire.close()
            if isinstance(welcome, frames.Refused):
                raise revive(welcome.error, welcome.text)
            raise BadFrame(f"the supervisor's first word was {type(welcome).__name__}")
        self._wire = wire
        self._inbox.extend(messages[1:])
        self._defined = 0
        self.supervisor = welcome.pid
        self._line.blocks.append(range(welcome.first, welcome.first + welcome.count))

    def _restore(self) -> None:
        """Tells a successor all that is open. It may know some of it, and nothing is done twice: ids say what is what."""
        wire = self._wire
        assert wire is not None
        self._define(wire)
        wire.put(self._outbox.again())
        steps = sorted(self.pending.keys() - self._outbox.steps())
        for at in range(0, len(steps), ADOPT_ROWS):
            wire.send(frames.Adopt(steps[at : at + ADOPT_ROWS], []))
        if self._watched:
            wire.send(frames.Adopt([], list(self._watched)))
        sent = self._outbox.asks()
        for ask in list(self._tickets.values()):
            if not ask.is_start:
                wire.send(ask.message)
            elif ask not in sent:
                wire.put([self._outbox.start(ask)])
        self._notify()

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
    """Seconds before the next supervisor; not the same for all who lost the last one."""
    return min(2.0, 0.05 * 2 ** (tries - 1)) * random.uniform(0.5, 1.0) if tries > 1 else 0.0


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
