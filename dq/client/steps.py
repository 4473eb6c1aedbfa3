"""What waits for the result of a step: a future, or one place in an ordered stream of results."""

from __future__ import annotations

import threading
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures._base import FINISHED
from typing import TYPE_CHECKING, TypeVar

from dq.flow.future import Future

if TYPE_CHECKING:
    from dq.client.connection import Connection

R = TypeVar("R")


class StepFuture(Future[R]):
    """The future of a step that was submitted alone. It outlives supervisors, not its engine."""

    _id: int
    _line: Connection

    def cancel(self) -> bool:
        """Cancels the step unless a worker has it. Asks the supervisor, so this takes a moment."""
        if self.done():
            return self.cancelled()
        return self._line.cancel(self)

    def result(self, timeout: float | None = None) -> R:
        """Waits up to `timeout` seconds and returns the step's result.

        Raises:
            Exception: What the step raised, of the same type where that can travel; else StepError.
            StepCrashed: The step killed its worker `max_crashes` times.
            CancelledError: It was cancelled.
            TimeoutError: There is none yet.
            SupervisorLost: The engine was closed first, or its supervisor can't be brought back.
        """
        if self._state != FINISHED:
            self._line.check_process()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits up to `timeout` seconds and returns what the step raised, None if it completed."""
        if self._state != FINISHED:
            self._line.check_process()
        return super().exception(timeout)

    def fail(self, error: BaseException) -> None:
        """No result will come."""
        self.set_exception(error)


class Ordered:
    """Results that are taken in the order in which their steps were submitted; cheaper than a future each.

    The connection's thread puts them in, one other thread takes them out.
    """

    def __init__(self) -> None:
        self.count = 0  # results that were put in
        self.bytes = 0  # of payload in them
        self.closed = False  # whether nobody will take any more
        self._rows: dict[int, tuple[int, bytes]] = {}
        self._error: BaseException | None = None
        self._wanted = 0
        self._here = threading.Event()

    def put(self, id: int, status: int, payload: bytes) -> None:
        if self.closed:
            return
        self.count += 1
        self.bytes += len(payload)
        self._rows[id] = status, payload
        if id == self._wanted:
            self._here.set()

    def fail(self, error: BaseException) -> None:
        """No more results will come."""
        self._error = error
        self._here.set()

    def take(self, id: int, timeout: float | None) -> tuple[int, bytes]:
        """Waits for a step's status and payload. Raises TimeoutError, or what `fail` was given."""
        row = self._rows.pop(id, None)
        if row is None:
            self._here.clear()
            self._wanted = id
            row = self._rows.pop(id, None)
            while row is None:
                if self._error is not None:
                    raise self._error
                if not self._here.wait(timeout):
                    raise FutureTimeout
                row = self._rows.pop(id, None)
        return row
