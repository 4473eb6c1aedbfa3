"""The suite as a whole."""

from __future__ import annotations

from dq.testing.crashing import Crashing
from dq.testing.failing import Failing
from dq.testing.leaving import Leaving
from dq.testing.working import Working


class ExecutorContract(Working, Failing, Leaving, Crashing):
    """What every executor must do. Bind it with a spec, and pytest runs it.

    Example:
        class TestThreads(ExecutorContract):
            spec = "thread:4"
    """
