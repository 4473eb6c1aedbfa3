"""A durable `concurrent.futures.Executor`."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

from dq.client import chunks
from dq.client.engine import Engine, check_step
from dq.client.stream import Stream
from dq.errors import NotPicklable
from dq.flow.decorators import Step
from dq.flow.future import Future

P = ParamSpec("P")
T = TypeVar("T")


class Executor(concurrent.futures.Executor):
    """Takes the place of a `ProcessPoolExecutor`; every call is on record, and survives the death of any process.

    A call whose future has a result is on disk with that result. Calls that were submitted and have none when the
    program dies run again later: when an engine, an executor or `dq up` works on the file.

    Where it differs: a future is never `running()`, and its `cancel()` asks the supervisor, so it takes a moment and
    succeeds as long as no worker has the call. `submit` waits while megabytes of calls are not on disk yet.

    Args:
        path: The database file; it is made if there is none.
        max_workers: How many worker processes; None for one a core.
        options: As for Engine: executors, start_method, hang, grace, signing_key.

    Raises:
        StoreError: The file can't be used; the subclass and the message say why.
        SupervisorLost: The supervisor ended before it was ready.

    Example:
        with dq.Executor("calls.db") as pool:
            print(list(pool.map(pow, range(10), range(10))))
    """

    def __init__(self, path: str | os.PathLike[str], max_workers: int | None = None, **options: Any) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._engine = Engine(path, workers=max_workers, **options)
        self._line = self._engine._line
        self._cache = self._line.table.cache
        self._line.drains = True

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submits a call.

        Returns:
            Its future. A call that can't be pickled fails there, with NotPicklable.

        Raises:
            RuntimeError: The executor was shut down.
            SupervisorLost: There is no supervisor, and there will be none.
        """
        line = self._line
        try:
            number = self._cache[fn]
        except (KeyError, TypeError):
            return self._submit(fn, args, kwargs)
        try:
            return line.submit(number, args, kwargs)
        except NotPicklable as error:
            return _failed(error)

    def _submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """The long way, for a function whose number is not at hand."""
        check_step(fn)
        try:
            settings = fn.settings if isinstance(fn, Step) and fn.has_term else None
            return self._line.submit(*self._line.table.call(fn, args, kwargs), settings)
        except NotPicklable as error:
            return _failed(error)

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Submits a call for each item at once; the results come in order.

        Args:
            fn: What is called, with one item of each iterable.
            iterables: Their items, until the shortest ends.
            timeout: Seconds from now in which every result that is asked for must be there; else TimeoutError.
            chunksize: How many calls make one step on record; more of them for calls of a few microseconds.

        Raises:
            Exception: What a call raised, when its result is asked for. Calls that nobody has begun are then cancelled.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        check_step(fn)
        items = zip(*iterables, strict=False)
        if chunksize == 1:
            return Stream(self._line, fn, items, ahead=0, timeout=timeout).results()
        parts = Stream(self._line, chunks.run, chunks.cut(fn, items, chunksize), ahead=0, timeout=timeout).results()
        return itertools.chain.from_iterable(parts)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls.

        Args:
            wait: Whether to wait for all results; if not, they still come as long as the program runs.
            cancel_futures: Whether to cancel the calls that no worker has.

        Raises:
            RuntimeError: A callback can't wait, since it runs in the thread that ends futures.
        """
        line = self._line
        if wait:
            line.check_thread()
        line.refuse_work()
        if cancel_futures:
            line.cancel_all()
        if not wait:
            line.leave()
            return
        try:
            line.wait_idle()
        finally:  # Ctrl-C ends the wait for results, not the care for what was submitted
            line.drains = False
            line.close()


def _failed(error: NotPicklable) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future
