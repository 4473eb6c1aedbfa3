"""A run, as whoever started it holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dq import errors
from dq.model.states import RunState

if TYPE_CHECKING:
    from dq.client.ask import Ask
    from dq.client.connection import Connection
    from dq.executor.frames import Ended, Record

R = TypeVar("R")


class Run(Generic[R]):
    """A handle to a run. It stays valid when the supervisor dies: its successor takes over.

    Attributes:
        id: The run's id, as given to `start` or made by it.
        workflow: The workflow's name, "module:qualname".
    """

    def __init__(self, line: Connection, number: int, id: str, workflow: str) -> None:
        self.id = id
        self.workflow = workflow
        self._line = line
        self._number = number
        self._ask: Ask | None = None

    def __repr__(self) -> str:
        return f"<Run {self.id!r} of {self.workflow}>"

    def result(self, timeout: float | None = None) -> R:
        """Waits up to `timeout` seconds for the run to end and returns what the workflow returned.

        Raises:
            Exception: What the workflow raised, of the same type where that can travel; else StepError.
            RunBlocked: Its recorded history does not fit the code; the message shows the difference.
            Cancelled: It was cancelled.
            TimeoutError: It has not ended yet.

        Example:
            run = engine.start(movie, 240, id="movie-1")
            print(run.result(timeout=60))
        """
        ended = self._ended(timeout)
        if ended.state == RunState.COMPLETED:
            value: R = self._line.codec.loads(ended.payload)
            return value
        if ended.state == RunState.BLOCKED:
            self._ask = None  # it may go on with other code
            raise errors.RunBlocked(ended.payload.decode("utf-8", "replace"))
        if not ended.payload:
            raise errors.Cancelled(f"the run {self.id} was cancelled")
        raise self._line.codec.restore(ended.payload)

    def done(self) -> bool:
        """Whether the run has ended, well or not."""
        return self.status in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)

    @property
    def status(self) -> str:
        """The run's state, asked afresh: "running", "blocked", "completed", "failed" or "cancelled"."""
        return self._record().state

    def progress(self) -> tuple[int, int]:
        """How many of its steps have a result, and how many it has asked for so far."""
        record = self._record()
        return record.done, record.steps

    def _record(self) -> Record:
        return find(self._line, self.id)

    def _ended(self, timeout: float | None) -> Ended:
        if self._ask is None:
            self._ask = self._line.watch(self._number)
        ended: Ended = self._line.answer(self._ask, timeout)
        return ended


def find(line: Connection, id: str) -> Record:
    """A run's record. Raises NoSuchRun."""
    from dq.executor.frames import Find

    record: Any = line.ask(lambda ticket: Find(ticket, id))
    if not record.id:
        raise errors.NoSuchRun(f"there is no run {id!r} in this file; `dq ls` shows those that are there")
    found: Record = record
    return found
