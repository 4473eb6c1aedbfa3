"""What an executor is: something that runs jobs and reports outcomes.

    supervisor ──Claim──►  member process: pump ──submit(job)──►  Executor
               ◄─Results─                  desk ◄─report(outcome)─

An executor lives in a *member*: a process of its own, forked from the template, that holds one socket to the
supervisor. The process pool has one member for each worker; every other executor has one member, its bridge, so no
third-party code ever enters the supervisor. Bytes come in and bytes go out; what user code does to its arguments,
results and exceptions is settled inside `Job.run`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from enum import Flag, auto
from typing import ClassVar

import msgspec

from dq.executor.frames import Effects, Try

LONG_BODY = 200_000  # nanoseconds; after such a body nothing is held back in the hope of more


class Capability(Flag):
    """What an executor can do. A step that needs more than that is refused when it is declared."""

    NONE = 0
    KILL = auto()  # a running step can be stopped, whatever it does
    HARD_TIMEOUT = auto()  # and so it can be held to a deadline
    MEMORY_LIMIT = auto()
    PID_LIVENESS = auto()  # the death of a worker is seen by the kernel
    REMOTE = auto()  # steps may run on other machines
    ASYNC = auto()  # many async steps at once
    SHARED_FS = auto()  # large payloads may be files
    ADOPT = auto()  # running steps survive the supervisor


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What came of a job. It encodes as a row of `frames.Results`."""

    step: int
    status: int
    payload: bytes
    began_at: int  # microseconds UTC
    busy: int  # nanoseconds in the body


class About(msgspec.Struct, frozen=True, gc=False):
    """What a job may know of its step besides what it takes to run it."""

    run: str = ""  # the name of its run
    tried: Try | None = None  # what came of earlier attempts


class Laden(Outcome, frozen=True, array_like=True, gc=False):
    """The outcome of a body that wants something done together with its completion.

    It travels as the frame that it holds. `busy` says more than LONG_BODY in any case, so that nothing is held back
    behind it.
    """

    frame: Effects


class Job(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One attempt of one step. `epoch` is its fencing token; `entry` turns it into an outcome and never raises.

    Each job is equal to itself only. (A Struct, since one is made for every step, and a frozen dataclass takes eight
    times as long to make.)
    """

    epoch: int
    step: int
    attempt: int
    function: int
    args: bytes
    entry: Callable[[Job], Outcome]
    about: About | None = None

    def run(self) -> Outcome:
        """Runs the body here and now, whatever it does, and tells what came of it."""
        return self.entry(self)


class Desk(abc.ABC):
    """What an executor reports to. Both calls may come from any thread."""

    @abc.abstractmethod
    def begin(self, job: Job) -> bool:
        """Says that a job's body begins now; False if the job was revoked, and then it must not begin."""

    @abc.abstractmethod
    def report(self, job: Job, outcome: Outcome) -> None:
        """Hands over an outcome."""


class Executor(abc.ABC):
    """The contract. An instance serves one member; `size` is the number in its spec ("thread:64").

    Example:
        class Serial(Executor):
            capabilities = Capability.NONE

            def start(self, desk):
                self.desk = desk

            def submit(self, job):
                if self.desk.begin(job):
                    self.desk.report(job, job.run())

            def shutdown(self, drain):
                pass
    """

    capabilities: ClassVar[Capability] = Capability.NONE
    serial: ClassVar[bool] = False
    """Whether `submit` always runs the job in the calling thread, to its end. Such a member takes a faster path."""

    def __init__(self, size: int, argument: str = "") -> None:
        self.size = size
        self.argument = argument

    @classmethod
    def members(cls, size: int) -> int:
        """How many member processes a pool of this size has."""
        return 1

    @classmethod
    def slots(cls, size: int) -> int:
        """How many bodies run at once in one member."""
        return size

    @abc.abstractmethod
    def start(self, desk: Desk) -> None:
        """Gets ready. Called once, before the first job."""

    @abc.abstractmethod
    def submit(self, job: Job) -> None:
        """Takes a job. May run it before returning (then jobs run one after another) or hand it on."""

    @abc.abstractmethod
    def shutdown(self, drain: float | None) -> None:
        """Stops. Waits up to `drain` seconds for running jobs (None: as long as it takes)."""
