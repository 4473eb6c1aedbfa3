"""Desks: where an executor reports, and where outcomes wait until they are sent.

Results go out together, since a frame costs more than a row, and early, since somebody waits for each of them.
"""

from __future__ import annotations

import abc
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from time import time_ns

from dq.executor import failures
from dq.executor.berth import ORPHANED, GivenBack
from dq.executor.contract import LONG_BODY, About, Desk, Executor, Job, Laden, Outcome
from dq.executor.frames import Progress, Results
from dq.executor.link import Link
from dq.executor.slots import ENTRIES, SlotWriter
from dq.model.states import FAILED

Entry = Callable[[Job], Outcome]

_PATIENCE = 1_000_000  # nanoseconds of bodies that a result waits for others, at most


class MemberDesk(Desk):
    """What the pump needs of a desk, beyond what executors see."""

    slot: SlotWriter  # set before the first claim arrives

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sending = threading.Lock()

    @abc.abstractmethod
    def accept(
        self, epoch: int, rows: list[tuple[int, int, int, bytes]], entry: Entry, abouts: Sequence[About | None] = ()
    ) -> None:
        """Takes the jobs of a claim in. `abouts` has one for each row, or is empty."""

    def progress(self, job: Job, cursor: bytes) -> None:
        """Sends how far the body of a job has come, after the results of earlier ones. Called in any thread."""
        self.rescue()
        with self._sending:
            self._link.send(Progress(job.epoch, job.step, cursor))

    @abc.abstractmethod
    def hand_out(self, executor: Executor) -> None:
        """Submits what was taken in, and sends what came of it before it returns or soon after."""

    @abc.abstractmethod
    def revoke(self) -> GivenBack:
        """Takes everything back that has not begun. May be called in another thread."""

    @abc.abstractmethod
    def rescue(self) -> None:
        """Sends what a long body holds up. Called in another thread."""

    @abc.abstractmethod
    def close(self) -> None:
        """Sends the rest."""


class SerialDesk(MemberDesk):
    """The desk of a serial executor: every body begins, runs and is reported in the main thread.

    Entry `_first + i` of the slot belongs to row i, and the next body gets `_next`. Only the main thread adds rows, and
    only under the lock are they sent.
    """

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._pending: deque[Job] = deque()
        self._rows: list[Outcome] = []
        self._epoch = 0  # of all rows
        self._first = self._next = 0
        self._waited = 0  # nanoseconds of bodies since the last frame

    def accept(
        self, epoch: int, rows: list[tuple[int, int, int, bytes]], entry: Entry, abouts: Sequence[About | None] = ()
    ) -> None:
        if abouts:
            jobs = [Job(epoch, *row, entry, about) for row, about in zip(rows, abouts, strict=True)]
        else:
            jobs = [Job(epoch, step, attempt, fn, args, entry) for step, attempt, fn, args in rows]
        self._pending.extend(jobs)

    def hand_out(self, executor: Executor) -> None:
        # Who pops a job has it: this thread takes from the left to begin it, `revoke` from the right.
        take, submit = self._pending.popleft, executor.submit
        while True:
            try:
                job = take()
            except IndexError:
                break
            submit(job)
        self._flush()

    def revoke(self) -> GivenBack:
        taken: GivenBack = []
        while True:
            try:
                job = self._pending.pop()
            except IndexError:
                taken.reverse()
                return taken
            taken.append((job.epoch, job.step))

    def begin(self, job: Job) -> bool:
        if job.epoch != self._epoch:
            self._flush()
            self._epoch = job.epoch
        self.slot.begin(self._next, job.step, job.epoch)
        return True

    def report(self, job: Job, outcome: Outcome) -> None:
        self.slot.finish(self._next)
        self._rows.append(outcome)
        self._next += 1
        self._waited += outcome.busy
        if outcome.busy > LONG_BODY or self._waited > _PATIENCE or self._next == ENTRIES:
            self._flush()

    def rescue(self) -> None:
        if self._rows:
            self._send()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        """Sends all rows; the main thread calls it while no body is begun, so all entries are free after it."""
        if self._next:
            self._send()
            self._first = self._next = self._waited = 0

    def _send(self) -> None:
        with self._sending:
            rows = self._rows[:]
            if rows:
                last = rows[-1]
                if type(last) is Laden:  # only the last can be one: nothing is held back behind it
                    if rows[:-1]:
                        self._link.send(Results(self._epoch, rows[:-1]))  # type: ignore[arg-type]
                    self._link.send(last.frame)
                else:
                    self._link.send(Results(self._epoch, rows))  # type: ignore[arg-type]
                self.slot.free(self._first, len(rows))
                self._first += len(rows)
                del self._rows[: len(rows)]


class SharedDesk(MemberDesk):
    """The desk of every other executor: begin and report come from any thread.

    A thread of its own sends. What is reported while it sends goes out with the next frame, so batches grow with load and
    nobody waits for a timer.
    """

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._pending: dict[Job, None] = {}  # who pops a job has it
        self._arrived: deque[Job] = deque()
        self._begun: dict[Job, int] = {}  # job -> entry of the slot
        self._free: SimpleQueue[int] = SimpleQueue()
        for index in range(ENTRIES):
            self._free.put(index)
        self._done: SimpleQueue[tuple[int, int, Outcome] | None] = SimpleQueue()
        self._counting = threading.Lock()
        self._sender = threading.Thread(target=self._send_all, name="dq-results", daemon=True)
        self._sender.start()

    def accept(
        self, epoch: int, rows: list[tuple[int, int, int, bytes]], entry: Entry, abouts: Sequence[About | None] = ()
    ) -> None:
        for row, about in zip(rows, abouts or [None] * len(rows), strict=True):
            job = Job(epoch, *row, entry, about)
            self._pending[job] = None
            self._arrived.append(job)

    def hand_out(self, executor: Executor) -> None:
        while self._arrived:
            job = self._arrived.popleft()
            try:
                executor.submit(job)
            except Exception as error:  # noqa: BLE001 -- a backend that refuses a job must not take the others along
                if self.begin(job):
                    self.report(job, Outcome(job.step, FAILED, failures.pack(error), time_ns() // 1000, 0))

    def revoke(self) -> GivenBack:
        taken: GivenBack = []
        while True:
            try:
                job, _ = self._pending.popitem()
            except KeyError:
                taken.reverse()
                return taken
            taken.append((job.epoch, job.step))

    def begin(self, job: Job) -> bool:
        try:
            del self._pending[job]
        except KeyError:
            return False
        index = self._free.get()
        self.slot.begin(index, job.step, job.epoch)
        self._begun[job] = index
        return True

    def report(self, job: Job, outcome: Outcome) -> None:
        index = self._begun.pop(job)
        with self._counting:
            self.slot.finish(index)
        self._done.put((index, job.epoch, outcome))

    def rescue(self) -> None:
        pass

    def close(self) -> None:
        self._done.put(None)
        self._sender.join()

    def _send_all(self) -> None:
        more = True
        while more:
            batch = [self._done.get()]
            try:
                while len(batch) < ENTRIES:
                    batch.append(self._done.get_nowait())
            except Empty:
                pass
            more = None not in batch
            try:
                self._send([item for item in batch if item is not None])
            except OSError:  # also where a body has closed the socket: nobody would ever hear of a result again
                os._exit(ORPHANED)

    def _send(self, batch: list[tuple[int, int, Outcome]]) -> None:
        for epoch in dict.fromkeys(epoch for _, epoch, _ in batch):
            rows = [outcome for _, its, outcome in batch if its == epoch and type(outcome) is not Laden]
            if rows:
                with self._sending:
                    self._link.send(Results(epoch, rows))  # type: ignore[arg-type]
        for _, _, outcome in batch:
            if type(outcome) is Laden:
                with self._sending:
                    self._link.send(outcome.frame)
        for index, _, _ in batch:
            self.slot.free(index)
            self._free.put(index)
