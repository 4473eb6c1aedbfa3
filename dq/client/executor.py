"""`dq.Executor`: a drop-in for ProcessPoolExecutor whose work is durable and whose pool can't break."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as BaseExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, ParamSpec, TypeVar

from dq.client.engine import Engine
from dq.flow.future import Future

P = ParamSpec("P")
R = TypeVar("R")


class Executor(BaseExecutor):
    """A `concurrent.futures.Executor` over worker processes, on one file.

    Every submitted call is a durable step: when this program dies, the next one on the same file, or `dq up`, finishes
    what was submitted. A call that kills its worker harms nobody else; after three deaths it fails with StepCrashed.
    Lambdas, closures and functions of `__main__` work.

    Args:
        path: The database file.
        max_workers: How many worker processes; None for one a core.
        options: As for Engine: executors, start_method, hang, grace.

    Raises:
        ValueError: max_workers is not positive.
        StoreError: The file can't be used; the subclass and the message say why.

    Example:
        with dq.Executor("work.db", max_workers=4) as pool:
            print(list(pool.map(pow, range(10), range(10))))
    """

    def __init__(self, path: str | os.PathLike[str], max_workers: int | None = None, **options: Any) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._engine = Engine(path, workers=max_workers, **options)
        line = self._engine._line
        self._line = line
        self._numbers = line.table.cache
        self._send = line.submit
        self._shut = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:  # type: ignore[override]
        """Submits a call and returns its future.

        Raises:
            RuntimeError: After `shutdown`.
            NotPicklable: The function or its arguments can't travel; the message names the culprit.
        """
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        try:
            number = self._numbers.get(fn)
        except TypeError:  # it has no hash
            number = None
        if number is not None:
            return self._send(number, args, kwargs)
        return self._send(*self._line.table.call(fn, args, kwargs))

    def map(  # type: ignore[override]
        self, fn: Callable[..., R], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[R]:
        """Calls `fn` for each item; yields the results in order.

        Args:
            timeout: Seconds from this call on after which a result that is not there raises TimeoutError.
            chunksize: How many items make one step. A larger one is of little use here: steps travel in batches.

        Raises:
            ValueError: chunksize is below 1.
            RuntimeError: After `shutdown`.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        until = None if timeout is None else time.monotonic() + timeout
        items = zip(*iterables, strict=False)
        if chunksize == 1:
            futures: deque[Future[Any]] = deque(self.submit(fn, *item) for item in items)
            return _in_order(futures, until)
        chunks = iter(lambda: tuple(itertools.islice(items, chunksize)), ())
        parts: deque[Future[Any]] = deque(self.submit(_each, fn, chunk) for chunk in chunks)
        return itertools.chain.from_iterable(_in_order(parts, until))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. Waits for those that were submitted, if `wait`; cancels those that nobody runs, if so asked.

        Without `wait` it returns at once; the calls go on and their futures end.
        """
        self._shut = True
        if cancel_futures and not self._line.closed:
            self._line.cancel_all()
        if wait:
            self._line.wait_idle()
            self._engine.close()
        else:
            self._line.leave()


def _each(fn: Callable[..., Any], items: tuple[tuple[Any, ...], ...]) -> list[Any]:
    return [fn(*item) for item in items]


def _in_order(futures: deque[Future[Any]], until: float | None) -> Iterator[Any]:
    """Yields results as they are due, forgets their futures, and cancels what is left when nobody wants more."""
    try:
        while futures:
            left = None if until is None else max(0.0, until - time.monotonic())
            future = futures.popleft()
            try:
                yield future.result(left)
            except (TimeoutError, FutureTimeout):
                if not future.done():
                    futures.appendleft(future)
                raise
    finally:
        for future in futures:
            future.cancel()
