"""The public future: a `concurrent.futures.Future` that costs next to nothing until somebody waits on it.

A client makes one for each submitted step, so what the base class makes in advance (a condition, two lists) comes into
being here on first use only. That is safe without a lock as long as one thread alone resolves futures, because each
side writes before it looks: the resolver sets the state and then looks for a condition, a waiter makes the condition
and then looks at the state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future as BaseFuture
from concurrent.futures import InvalidStateError
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar, cast

R = TypeVar("R")

_making = threading.Lock()


class Future(BaseFuture[R]):
    """The result of a step, now or later. `Step.submit`, `Engine.submit` and `Executor.submit` return one.

    Example:
        future = engine.submit(render, 7)
        data = future.result(timeout=60)
    """

    _state = PENDING
    _failed = False
    _payload: bytes = b""
    _decode: Callable[[bytes], Any] | None = None
    _canceller: Callable[[Future[Any]], bool] | None = None
    _lock: threading.Condition | None = None
    _value: Any = None
    _error: BaseException | None = None
    _waiting: list[Any] | None = None
    _callbacks: list[Callable[[BaseFuture[R]], object]] | None = None

    __init__ = object.__init__

    # What the base class keeps in attributes, made on first use. To type checkers they are its attributes still, so that
    # `wait` and `as_completed` take these futures.
    if not TYPE_CHECKING:

        @property
        def _condition(self) -> threading.Condition:
            if self._lock is None:
                with _making:
                    if self._lock is None:
                        self._lock = threading.Condition()
            return self._lock

        @property
        def _waiters(self) -> list[Any]:
            if self._waiting is None:
                self._waiting = []
            return self._waiting

        @property
        def _result(self) -> Any:
            payload, decode = self._payload, self._decode  # in this order: another thread may clear them in the other
            if decode is not None and not self._failed:
                self._value = decode(payload)
                self._decode = None
                self._payload = b""
            return self._value

        @property
        def _exception(self) -> BaseException | None:
            payload, decode = self._payload, self._decode
            if decode is None:
                return self._error
            if self._failed:
                self._error = decode(payload)
                self._decode = None
                self._payload = b""
                return self._error
            try:
                self._result  # noqa: B018 -- a result that does not unpickle here is an exception to whoever asks
            except Exception as error:  # noqa: BLE001 -- users' classes may raise anything
                return error
            return None

    @property
    def _done_callbacks(self) -> list[Callable[[BaseFuture[R]], object]]:
        if self._callbacks is None:
            self._callbacks = []
        return self._callbacks

    def result(self, timeout: float | None = None) -> R:
        """Waits up to `timeout` seconds and returns the step's result.

        Raises the step's exception, `CancelledError` or `TimeoutError`.
        """
        if self._state == FINISHED and not self._failed:
            return cast(R, self._result)
        return super().result(timeout)

    def __await__(self) -> Generator[Any, None, R]:
        """Waits in an asyncio program; in an async workflow the run rests meanwhile."""
        import asyncio

        return asyncio.wrap_future(self).__await__()

    def cancel(self) -> bool:
        """Cancels the step if no worker has taken it yet. Says whether it is cancelled."""
        if self._canceller is None or self.done():
            return self.cancelled()
        return self._canceller(self)

    def resolve(self, payload: bytes, decode: Callable[[bytes], Any], failed: bool = False) -> None:
        """Ends the future with bytes that `decode` turns into the result, or into the exception if it `failed`.

        Decoding happens in the thread that asks. Only one thread may call `resolve` and `drop`, once for each future.
        """
        self._payload = payload
        self._decode = decode
        if failed:
            self._failed = True
        self._state = FINISHED
        if self._lock is not None:
            self._tell("add_exception" if failed else "add_result")

    def drop(self) -> None:
        """Ends the future as cancelled; for the same single thread as `resolve`."""
        self._state = CANCELLED_AND_NOTIFIED
        if self._lock is not None:
            self._tell("add_cancelled")

    def set_result(self, result: R) -> None:
        """Ends the future with a value; for the same single thread as `resolve`."""
        self._check_open()
        self._value = result
        self._state = FINISHED
        if self._lock is not None:
            self._tell("add_result")

    def set_exception(self, exception: BaseException | None) -> None:
        """Ends the future with an exception; for the same single thread as `resolve`."""
        self._check_open()
        self._error = exception
        self._failed = True
        self._state = FINISHED
        if self._lock is not None:
            self._tell("add_exception")

    def _check_open(self) -> None:
        if self._state not in (PENDING, RUNNING):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def _tell(self, event: str) -> None:
        """Wakes those who wait. Whoever takes the lock later sees the state."""
        with self._condition:
            for waiter in self._waiters:
                getattr(waiter, event)(self)
            self._condition.notify_all()
        if self._callbacks:
            self._invoke_callbacks()  # type: ignore[attr-defined]
