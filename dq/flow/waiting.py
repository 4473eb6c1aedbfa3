"""What a workflow waits with: time, signals, and several futures at once.

All of it is recorded, so that it ends at the same point of the workflow on every replay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from dq.errors import DqError
from dq.flow import context
from dq.model import names

if TYPE_CHECKING:
    from concurrent.futures import Future as BaseFuture

    from dq.flow.future import Future
    from dq.flow.settings import Span

T = TypeVar("T")


def sleep(span: Span) -> Any:
    """Waits. In a workflow the due time is recorded: a restart waits for what is left of it, and no process is held.

    In an async workflow it is to be awaited, and does the same as `asyncio.sleep`.

    Args:
        span: Seconds, or a timedelta.

    Example:
        dq.sleep(timedelta(hours=1))
    """
    from dq.executor.frames import Term
    from dq.executor.options import SLEEP
    from dq.flow.settings import micros

    run = context.running
    if run is None:
        return _sleep_here(micros(span) / 1_000_000)
    if micros(span) < 0:
        raise ValueError(f"dq.sleep({span!r}): nothing can end in the past")
    return run.wait_for(SLEEP, (), Term(0, after=max(micros(span), 1)))


def _sleep_here(seconds: float) -> Any:
    """Outside of a run a workflow is a plain function, and so is this."""
    import asyncio
    import time

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        time.sleep(seconds)
        return None
    return asyncio.sleep(seconds)


def wait_signal(name: str, *, timeout: Span | None = None) -> Any:
    """Waits for a signal to this run and returns what was sent with it. In an async workflow it is to be awaited.

    A signal that came before is there at once. Signals of one name come in order, each once.

    Args:
        name: The signal's name.
        timeout: Seconds, or a timedelta; None waits as long as it takes.

    Raises:
        SignalTimeout: None came in time. That is recorded: one that comes later does not change it.

    Example:
        try:
            approved = dq.wait_signal("approve", timeout=timedelta(days=14))
        except dq.SignalTimeout:
            approved = False
    """
    from dq.executor.frames import Term
    from dq.executor.options import WAIT_SIGNAL
    from dq.flow.settings import micros

    run = context.running
    if run is None:
        raise DqError(f"dq.wait_signal({name!r}) waits in a workflow, and no run is running here")
    names.checked("a signal's name", name)
    after = 0 if timeout is None else max(micros(timeout), 1)
    return run.wait_for(WAIT_SIGNAL, (name,), Term(0, after=after, topic=name))


@overload
def gather(*futures: Future[T]) -> list[T]: ...
@overload
def gather(*futures: Future[Any]) -> list[Any]: ...
def gather(*futures: Future[Any]) -> list[Any]:
    """Waits for all futures and returns their results in the order of the arguments.

    The first failure that is delivered is raised at once; the other steps go on.

    Example:
        left, right = dq.gather(build.submit("left"), build.submit("right"))
    """
    if context.running is not None and futures:
        for future in as_completed(futures):
            future.result()
    return [future.result() for future in futures]


def wait(
    futures: Iterable[Future[T]], *, first: bool = False, timeout: Span | None = None
) -> tuple[list[Future[T]], list[Future[T]]]:
    """Waits for futures. Returns (those that are done, those that are not), each in the order given.

    Args:
        futures: What `submit` returned.
        first: Whether to return as soon as one of them is done; else all must be.
        timeout: Seconds, or a timedelta, after which it returns with what is there.

    Example:
        done, rest = dq.wait([mirror.submit(url) for url in urls], first=True)
        for future in rest:
            future.cancel()
    """
    from dq.flow.settings import micros

    given = list(futures)
    run = context.running
    if run is None:
        import concurrent.futures as plain

        until = plain.FIRST_COMPLETED if first else plain.ALL_COMPLETED
        plain.wait(given, None if timeout is None else micros(timeout) / 1_000_000, until)
    elif given:
        watch = _watch(given, 1 if first else len(given))
        if timeout is None:
            run.park(watch)
        else:
            watch.wait(run, micros(timeout))
    return [future for future in given if future.done()], [future for future in given if not future.done()]


def as_completed(futures: Iterable[Future[T]], *, timeout: Span | None = None) -> Iterator[Future[T]]:
    """The futures in the order in which their results come, which is the same on every replay.

    Args:
        futures: What `submit` returned.
        timeout: Seconds, or a timedelta, for all of them.

    Raises:
        TimeoutError: The time was up before all of them were there.
    """
    from dq.flow.settings import micros

    given = list(futures)
    run = context.running
    if run is None:
        import concurrent.futures as plain

        found: Iterator[BaseFuture[T]] = plain.as_completed(given, None if timeout is None else micros(timeout) / 1e6)
        yield from cast("Iterator[Future[T]]", found)
        return
    watch = _watch(given, 1)
    timer = 0 if timeout is None else run.timer(micros(timeout), watch)
    for _ in given:
        run.park(watch)
        if not watch.came:
            raise TimeoutError(f"{len(given)} futures were not all done within {timeout} s")
        yield cast("Future[T]", watch.came.popleft())
    if timer and not watch.over:
        run.withdraw(timer)


def _watch(futures: list[Future[Any]], needed: int) -> Any:
    from dq.flow.awaited import FlowFuture, Watch

    watch = Watch(needed)
    for future in futures:
        if not isinstance(future, FlowFuture):
            raise TypeError(f"{future!r} is not a future of this run; `step.submit(...)` inside the workflow makes one")
        future.watch(watch)
    return watch
