"""The attempt that runs now, as its body sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from dq.executor.contract import Job

if TYPE_CHECKING:
    from datetime import datetime

# True while a process imports user code in order to run it. An engine that is opened meanwhile stands in a script that
# lacks its `if __name__ == "__main__":`, and would start itself for ever.
IN_TEMPLATE = False

# The job whose body runs in this thread or task. It is turned into an Info only when somebody asks, since a body of a
# microsecond should not pay for what it does not read.
running: ContextVar[Job | None] = ContextVar("dq_running_job", default=None)

_home = ""
_database = ""


@dataclass(frozen=True, slots=True)
class Info:
    """What a body may know of itself.

    Attributes:
        step: The step's id.
        attempt: 1 for the first try.
        epoch: The claim's fencing token; greater for every later claim.
        run: The name of the run that the step belongs to, "" for a step submitted alone.
        idempotency_key: The same for all attempts of this step, and no other step's.
        cursor: What an earlier attempt has last given to `dq.progress`, None if there is nothing.
        scheduled_at: In a workflow that a schedule has started: the time (UTC) that it was due at. Else None.
    """

    step: int
    attempt: int
    epoch: int
    run: str
    idempotency_key: str
    cursor: Any = None
    scheduled_at: datetime | None = None


def settle(home: str, database: str = "") -> None:
    """Tells which database this process works for: step ids are unique within one file only.

    `home` is a word that the file keeps wherever it lies, so that keys stay the same when it is moved; `database` is its
    path now.
    """
    global _home, _database
    _home, _database = home, database


def database() -> str:
    """The path of the database that this process works for, "" where it works for none."""
    return _database


def current() -> Info:
    """The attempt whose body runs now.

    Raises:
        LookupError: No body of a step runs in this thread or task.
    """
    job = running.get()
    if job is None:
        raise LookupError("no step runs here; dq.current() answers in the body of a step only")
    run, cursor = "", None
    if job.about is not None:
        run = job.about.run
        if job.about.tried is not None and job.about.tried.cursor:
            from dq.executor.codec import Codec
            from dq.executor.signing import VALUE, opened

            cursor = Codec().loads(opened(VALUE, job.about.tried.cursor))
    return Info(job.step, job.attempt, job.epoch, run, keyed(str(job.step)), cursor)


def keyed(text: str) -> str:
    """A key for something of this file that no other file has."""
    return blake2b(f"{_home}\0{text}".encode(errors="surrogateescape"), digest_size=16).hexdigest()


@contextlib.contextmanager
def importing() -> Generator[None]:
    """Holds IN_TEMPLATE up while user code is imported."""
    global IN_TEMPLATE
    before = IN_TEMPLATE
    IN_TEMPLATE = True  # pyright: ignore[reportConstantRedefinition]
    try:
        yield
    finally:
        IN_TEMPLATE = before  # pyright: ignore[reportConstantRedefinition]
