"""A host: the process that runs workflows, many at once in one thread.

    supervisor ──Assign, History, Deliver──►  host: hub ──switch──► run (a greenlet each)
               ◄──Steps, Finish, Block──────            ◄─rest────

The hub reads what has come, lets each run that it concerns go on until it rests, and then sends all that the runs have
asked for in as few frames as will do. It never waits for one run while another can go on.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from greenlet import getcurrent
from msgspec import structs

from dq.errors import DqError
from dq.executor import berth as berths
from dq.executor import functions, signed
from dq.executor.codec import Codec
from dq.executor.frames import (
    Assign,
    BadFrame,
    Block,
    Define,
    Deliver,
    Finish,
    Forget,
    History,
    Lease,
    Leased,
    Message,
    More,
    Steps,
    Stop,
    Term,
    Withdraw,
    encode,
)
from dq.executor.link import Closed, Link
from dq.executor.slots import SlotWriter
from dq.flow import context
from dq.flow.home import StepRow
from dq.flow.journal import Recorded
from dq.flow.registry import Registry
from dq.flow.run import Run
from dq.flow.sentry import Sentry

_ROWS = 4096  # in one Steps frame
_BYTES = 1 << 20  # of arguments in one Steps frame, about
_HOLD = 0.002  # seconds that a step may wait for others to share its frame while runs still go on


class Ids:
    """Ids for new steps, leased in blocks."""

    def __init__(self, ask: Callable[[], None], wait: Callable[[], None]) -> None:
        self._ask = ask
        self._wait = wait
        self._next = self._end = 0
        self._blocks: deque[tuple[int, int]] = deque()
        self._asked = False
        self._low = 0
        self._floor = 0

    def lease(self) -> None:
        """Asks for a block, unless one is asked for."""
        if not self._asked:
            self._asked = True
            self._ask()

    def add(self, first: int, count: int) -> None:
        """A block has come."""
        self._asked = False
        self._blocks.append((first, first + count))

    def above(self, id: int) -> None:
        """From now on ids are higher than this one: the ids of a run rise in the order in which it asks, always."""
        self._floor = max(self._floor, id)
        self._next = min(max(self._next, id + 1), self._end)

    @property
    def given(self) -> int:
        """The next id that is given out."""
        return self._next

    def take(self) -> int:
        """An id that nobody else has. Waits for a block if need be."""
        while self._next == self._end:
            if self._blocks:
                first, self._end = self._blocks.popleft()
                self._next = min(max(first, self._floor + 1), self._end)
                self._low = self._end - (self._end - self._next) // 2
            else:
                self.lease()
                self._wait()
        id = self._next
        self._next += 1
        if id >= self._low and not self._blocks:
            self.lease()
        return id


class Host:
    """The hub. `serve` never returns: it raises Closed or Leave."""

    def __init__(self, link: Link, slot: SlotWriter, codec: Codec) -> None:
        self.codec = codec
        self.greenlet = getcurrent()
        self.thread = threading.get_ident()
        self.registry = Registry(self._send)
        self.ids = Ids(lambda: self._send(Lease()), self._await_ids)
        self._link = link
        self._slot = slot
        self._pid = os.getpid()
        self._inbox: deque[Any] = deque()
        self._functions: dict[int, Define] = {}
        self._bodies: dict[int, Callable[..., Any]] = {}
        self._runs: dict[int, Run] = {}
        self._workflows: dict[int, int] = {}  # run -> its function
        self._moved: dict[int, Run] = {}  # runs that something has come for
        self._rows: list[StepRow] = []
        self._terms: list[Term] = []
        self._withdrawn: list[tuple[int, int]] = []
        self._size = 0
        self._first_at = 0.0
        self._ends: list[Finish | Block] = []

    def serve(self) -> NoReturn:
        self.ids.lease()
        while True:
            if not self._inbox:
                self._inbox.extend(self._link.receive())
            while self._inbox:
                self._hear(self._inbox.popleft())
            while self._moved:
                self._advance(self._moved.pop(next(iter(self._moved))))
            self.flush()

    def _hear(self, message: Any) -> None:
        match message:
            case Deliver():
                self._deliver(message.rows)
            case History():
                self._history(message.run, message.rows, message.last)
            case Assign():
                self._runs[message.run] = Run.assigned(self, message)
                self.ids.above(message.above)
                self._workflows[message.run] = message.function
            case Define():
                self._functions[message.number] = message
            case Leased():
                self.ids.add(message.first, message.count)
            case Forget():
                self._forget(message.run)
            case Stop():
                raise Leave
            case _:
                raise BadFrame(f"a {type(message).__name__} sent to a host")

    def _deliver(self, rows: list[tuple[int, int, int, int, bytes, int]]) -> None:
        runs, moved = self._runs, self._moved
        for id, step, seq, status, payload, at in rows:
            run = runs.get(id)
            if run is None:
                continue
            if step:
                run.journal.arrive(step, seq, status, payload, at)
            else:
                run.hear_cancel(seq, at, payload.decode(errors="replace"))
            moved[id] = run

    def _forget(self, id: int) -> None:
        """A run has ended without its code; what is left of that is unwound."""
        run = self._runs.pop(id, None)
        self._moved.pop(id, None)
        self._workflows.pop(id, None)
        if run is not None and not run.ended:
            run.ended = True
            if run.greenlet:
                context.running = run
                run.greenlet.throw()
                context.running = None

    def _history(self, id: int, rows: list[Any], last: bool) -> None:
        run = self._runs.get(id)
        if run is None:
            return
        names = self._functions
        for step, function, scope, occurrence, mark, args, seq, status, payload, at in rows:
            recorded = Recorded(step, mark, args, seq, status, payload, at)
            run.journal.load(scope, names[function].name, occurrence, recorded)
        if rows:
            self.ids.above(rows[-1][0])
        run.loaded = True
        run.complete = last
        run.stalled = False
        self._moved[id] = run

    def _await_ids(self) -> None:
        """Reads on until a lease has come; what else comes waits its turn."""
        self.flush()
        while True:
            messages = self._link.receive()
            leases = [message for message in messages if isinstance(message, Leased)]
            self._inbox.extend(message for message in messages if not isinstance(message, Leased))
            for lease in leases:
                self._hear(lease)
            if leases:
                return
            if any(isinstance(message, Stop) for message in messages):
                raise Leave

    def _advance(self, run: Run) -> None:
        """Lets a run go on until it rests and nothing is there for it."""
        while run.loaded and not run.ended:
            if run.runnable():
                self._resume(run)
            elif run.stalled:
                self.flush()
                break
            elif not run.journal.deliver():
                break
        if self._rows and time.monotonic() - self._first_at > _HOLD:
            self.flush()

    def _resume(self, run: Run) -> None:
        """Runs the user's code; a kill meanwhile is this run's."""
        context.running = run
        self._slot.begin(0, run.id, 0)
        run.greenlet.switch()
        if os.getpid() != self._pid:
            os._exit(0)  # a workflow has forked, and this is the copy
        self._slot.free(0)
        context.running = None

    def workflow(self, run: Run) -> Callable[..., Any]:
        """The function of a run. Raises NotImportable."""
        number = self._workflows[run.id]
        body = self._bodies.get(number)
        if body is None:
            told = self._functions[number]
            body = self._bodies[number] = functions.recorded(told.name, told.code)
        return body

    def more(self, run: int) -> None:
        """A run needs the next part of its history."""
        self._link.send(More(run))

    def withdraw(self, run: int, step: int) -> None:
        """A run does not want a step any more."""
        self._withdrawn.append((run, step))

    def write(self, row: StepRow, term: Term | None) -> None:
        """A run asks for a step."""
        if not self._rows:
            self._first_at = time.monotonic()
        self._rows.append(row)
        if term is not None:
            self._terms.append(structs.replace(term, step=row[0]))
        self._size += len(row[6])
        if len(self._rows) >= _ROWS or self._size > _BYTES:
            self._send_rows()

    def end(self, run: Run, message: Finish | Block) -> None:
        """A run is over, or given up for now."""
        self._ends.append(message)
        self._runs.pop(run.id, None)
        self._workflows.pop(run.id, None)

    def flush(self) -> None:
        """Sends all steps and then all ends, so that a run's steps are known before its end is."""
        if self._rows:
            self._send_rows()
        if self._withdrawn:
            rows, self._withdrawn = self._withdrawn, []
            self._link.send(Withdraw(rows))
        if self._ends:
            ends, self._ends = self._ends, []
            for start in range(0, len(ends), 256):
                self._link.send_bytes(b"".join(map(encode, ends[start : start + 256])))

    def _send_rows(self) -> None:
        rows, self._rows, self._size = self._rows, [], 0
        terms, self._terms = self._terms, []
        self._link.send(Steps(rows, terms))

    def _send(self, message: Message) -> None:
        self._link.send(message)


class Leave(DqError):
    """The supervisor asks this host to leave."""


def main(berth: berths.Berth) -> NoReturn:
    """The life of a host process. Its runs are on disk, so leaving costs nothing but their replay."""
    link = Link(berth.sock)
    stopping = threading.Event()

    def stop() -> None:
        stopping.set()
        berth.sock.shutdown(0)  # SHUT_RD: wakes the hub

    code = berths.LEFT
    try:
        codec = signed.own(berth.blobs, patient=True)
        sentries: list[Sentry] = []  # one, as soon as there is a host to look at
        slot = berth.report_for_work(link, on_stop=stop, on_beat=lambda: sentries[0].look() if sentries else None)
        host = Host(link, slot, codec)
        sentries.append(Sentry(host))
        gc.freeze()
        try:
            host.serve()
        except Leave:
            host.flush()
    except Closed:
        code = berths.LEFT if stopping.is_set() else berths.ORPHANED
    except BadFrame:
        code = berths.GARBLED
    finally:
        os._exit(code)
