"""The process pool: one worker process for each body that runs at once."""

from __future__ import annotations

from typing import ClassVar

from dq.executor.contract import Capability, Desk, Executor, Job


class ProcessExecutor(Executor):
    """Runs each job in the member's main thread; "process:4" has four members.

    What a body does to its process it does to itself alone: the supervisor sees the death and replaces the worker.
    """

    capabilities: ClassVar[Capability] = (
        Capability.KILL
        | Capability.HARD_TIMEOUT
        | Capability.MEMORY_LIMIT
        | Capability.PID_LIVENESS
        | Capability.SHARED_FS
    )
    serial: ClassVar[bool] = True

    @classmethod
    def members(cls, size: int) -> int:
        return size

    @classmethod
    def slots(cls, size: int) -> int:
        return 1

    def start(self, desk: Desk) -> None:
        self._desk = desk

    def submit(self, job: Job) -> None:
        if self._desk.begin(job):
            self._desk.report(job, job.entry(job))

    def shutdown(self, drain: float | None) -> None:
        pass
