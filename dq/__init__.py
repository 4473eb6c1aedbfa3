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
from dq.errors import BadExecutor, BadRunId, Cancelled, CorruptDatabase, DamagedPayload, DatabaseInUse, DiskFull
from dq.errors import DqError, Fenced, ForeignDatabase, GuardMissing, NewerSchema, NoSuchFolder, NoSuchRun, NotADatabase
from dq.errors import NotImportable, NotPicklable, ReadOnlyFile, RunBlocked, RunConflict, StepCrashed, StepError
from dq.errors import StoreError, SupervisorLost, UnsafePlace
from dq.flow.context import current, random, uuid4
from dq.flow.decorators import Step, Workflow, step, workflow
# isort: on

if TYPE_CHECKING:
    from dq.client.engine import Engine
    from dq.client.executor import Executor
    from dq.client.run import Run
    from dq.flow.future import Future

__version__ = "0.1.0"

# fmt: off
__all__ = [
    "BadExecutor", "BadRunId", "Cancelled", "CorruptDatabase", "DamagedPayload", "DatabaseInUse", "DiskFull",
    "DqError", "Engine", "Executor", "Fenced", "ForeignDatabase", "Future", "GuardMissing", "NewerSchema",
    "NoSuchFolder", "NoSuchRun", "NotADatabase", "NotImportable", "NotPicklable", "ReadOnlyFile", "Run",
    "RunBlocked", "RunConflict", "Step", "StepCrashed", "StepError", "StoreError", "SupervisorLost",
    "UnsafePlace", "Workflow", "__version__", "current", "random", "step", "uuid4", "workflow",
]
# fmt: on

_LAZY = {"Engine": "client.engine", "Executor": "client.executor", "Run": "client.run", "Future": "flow.future"}


def __getattr__(name: str) -> Any:
    """Imports what a process that only declares or runs steps can do without."""
    if name not in _LAZY:
        raise AttributeError(f"module 'dq' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"dq.{_LAZY[name]}"), name)
    return value
