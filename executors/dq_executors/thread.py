"""The thread pool: one bridge process whose threads run the bodies, for steps that wait more than they compute."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from time import monotonic
from typing import ClassVar

from dq.executor.contract import Capability, Desk, Executor, Job


class ThreadExecutor(Executor):
    """Runs jobs in `size` threads; "thread:64" runs 64 at once in one process.

    A body that crashes takes the bodies beside it along: only steps of one kind of trust should share a bridge. A body
    can't be killed alone.
    """

    capabilities: ClassVar[Capability] = Capability.PID_LIVENESS | Capability.SHARED_FS

    def start(self, desk: Desk) -> None:
        self._desk = desk
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # Daemons, so that a body which never ends can't keep the process from ending.
        self._threads = [threading.Thread(target=self._work, name=f"dq-{n}", daemon=True) for n in range(self.size)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def shutdown(self, drain: float | None) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        deadline = None if drain is None else monotonic() + drain
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - monotonic()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._desk.begin(job):
                self._desk.report(job, job.run())
