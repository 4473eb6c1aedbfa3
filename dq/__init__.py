"""Durable workflows and a multiprocess task queue on one SQLite file.

Example:
    @dq.step
    def render(frame: int) -> bytes: ...

    @dq.workflow
    def movie(frames: int) -> int:
        return sum(map(len, render.map(range(frames))))

    if __name__ == "__main__":
        with dq.Engine("movie.db", workers=4) as engine:
            print(engine.start(movie, 240, id="movie-1").result())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# isort: off
from dq.errors import BadExecutor, BadFork, BadName, BadRunId, BadSchedule, Cancelled, CorruptDatabase, DamagedPayload
from dq.errors import (
    DatabaseInUse,
    DiskFull,
    DqError,
    EffectFailed,
    Fenced,
    ForeignDatabase,
    GuardMissing,
    MemoryExceeded,
)
from dq.errors import NewerSchema, NoSuchFolder, NoSuchLetter, NoSuchRun, NoSuchSchedule, NoSuchStep
from dq.errors import (
    NotADatabase,
    NotImportable,
    NotPicklable,
    ReadFailed,
    ReadOnlyFile,
    RunBlocked,
    RunConflict,
    RunEnded,
    RunTimeout,
)
from dq.errors import (
    ScheduleConflict,
    SignalTimeout,
    SignatureMismatch,
    StepCrashed,
    StepError,
    StepTimeout,
    StoreError,
)
from dq.errors import SupervisorLost, UnsafePlace
from dq.flow.context import current, now, progress, random, uuid4
from dq.flow.decorators import Step, Workflow, step, workflow
from dq.flow.effects import enqueue, signal, write
from dq.flow.marks import checkpoint, compensate, patched, publish
from dq.flow.queue import Queue
from dq.flow.schedules import schedule
from dq.flow.waiting import as_completed, gather, sleep, wait, wait_signal
# isort: on

if TYPE_CHECKING:
    from dq.client.client import Client
    from dq.client.engine import Engine
    from dq.client.executor import Executor
    from dq.client.reading import read
    from dq.client.run import Run
    from dq.client.schedules import Schedule
    from dq.flow.future import Future

__version__ = "0.1.0"

# fmt: off
__all__ = [
    "BadExecutor", "BadFork", "BadName", "BadRunId", "BadSchedule", "Cancelled", "Client", "CorruptDatabase", "DamagedPayload",
    "DatabaseInUse", "DiskFull", "DqError", "EffectFailed", "Engine", "Executor", "Fenced", "ForeignDatabase", "Future",
    "GuardMissing", "MemoryExceeded", "NewerSchema", "NoSuchFolder", "NoSuchLetter", "NoSuchRun", "NoSuchSchedule",
    "NoSuchStep", "NotADatabase", "NotImportable", "NotPicklable", "Queue", "ReadFailed", "ReadOnlyFile", "Run",
    "RunBlocked", "RunConflict", "RunEnded", "RunTimeout", "Schedule", "ScheduleConflict", "SignalTimeout", "SignatureMismatch", "Step",
    "StepCrashed", "StepError", "StepTimeout", "StoreError", "SupervisorLost", "UnsafePlace", "Workflow", "__version__",
    "as_completed", "checkpoint", "compensate", "current", "enqueue", "gather", "now", "patched", "progress", "publish",
    "random", "read", "schedule", "signal", "sleep", "step", "uuid4", "wait", "wait_signal", "workflow", "write",
]
# fmt: on

_LAZY = {
    "Client": "client.client",
    "Engine": "client.engine",
    "Executor": "client.executor",
    "Run": "client.run",
    "read": "client.reading",
    "Future": "flow.future",
    "Schedule": "client.schedules",
}


def __getattr__(name: str) -> Any:
    """Imports what a process that only declares or runs steps can do without."""
    if name not in _LAZY:
        raise AttributeError(f"module 'dq' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"dq.{_LAZY[name]}"), name)
    return value
