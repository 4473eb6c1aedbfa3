"""A question to the supervisor, and the thread that waits for its answer."""

from __future__ import annotations

import threading
from typing import Any

from dq.executor.frames import Message, Start


class Ask:
    """One message that is answered. Sent again after a reconnect until it is: every such message may be repeated.

    Attributes:
        ticket: The number that the answer bears; 0 for Watch, whose answer bears the run's id.
    """

    __slots__ = ("_answer", "_done", "_error", "message", "ticket")

    def __init__(self, message: Message, ticket: int = 0) -> None:
        self.message = message
        self.ticket = ticket
        self._done = threading.Event()
        self._answer: Any = None
        self._error: BaseException | None = None

    @property
    def is_start(self) -> bool:
        return isinstance(self.message, Start)

    def done(self) -> bool:
        return self._done.is_set()

    def settle(self, answer: Any) -> None:
        self._answer = answer
        self._done.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._done.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the answer is here within `timeout` seconds."""
        return self._done.wait(timeout)

    def answer(self) -> Any:
        """The answer, which must be here. Raises what the supervisor refused it with."""
        if self._error is not None:
            raise self._error
        return self._answer
