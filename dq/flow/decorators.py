"""`@dq.step` and `@dq.workflow`: plain functions that become durable inside a run."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypedDict, TypeVar, cast, overload

from dq.errors import DqError
from dq.flow import context
from dq.flow.settings import Settings

if TYPE_CHECKING:
    from datetime import datetime

    from typing_extensions import Unpack

    from dq.flow.future import Future
    from dq.flow.queue import Queue
    from dq.flow.registry import Function
    from dq.flow.schedules import Mark
    from dq.flow.settings import Span

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class StepOptions(TypedDict, total=False):
    """The options of `dq.step`."""

    name: str
    executor: str
    max_crashes: int
    timeout: Span
    memory: int
    on_crash: str
    stop: Callable[..., Any]
    wait: Callable[..., Any]
    retry: Callable[..., Any]
    queue: Queue
    priority: int
    delay: Span
    at: datetime
    dedup: str
    dedup_for: Span
    debounce: Span


class WorkflowOptions(TypedDict, total=False):
    """The options of `dq.workflow`."""

    name: str
    max_crashes: int
    timeout: Span
    detached: bool
    version: str


_COROUTINE = 0x80  # inspect.CO_COROUTINE; inspect itself would double the time that importing dq takes
_warned = False


class _Decorated(Generic[P, R_co]):
    """A function with options. Outside a run, calling it just calls the function."""

    kind = ""
    __name__: str
    __qualname__: str

    def __init__(self, body: Callable[P, R_co], settings: Settings = Settings()) -> None:  # noqa: B008 -- it is constant
        if not hasattr(body, "__qualname__"):  # what is callable and has none can't be found again by name
            raise TypeError(f"dq.{self.kind} decorates functions; {body!r} is a {type(body).__name__}")
        functools.update_wrapper(cast(Callable[..., Any], self), body)
        self.__dq_body__ = body
        self.settings = settings
        self.has_term = settings.has_term
        self.registered: Function | None = None  # what the host in this process knows it as
        self.is_async = bool(getattr(getattr(body, "__code__", None), "co_flags", 0) & _COROUTINE)

    @property
    def name(self) -> str:
        """What the record calls it, where that is not its module and name."""
        return self.settings.name

    @property
    def executor(self) -> str:
        return self.settings.executor

    @property
    def max_crashes(self) -> int:
        return self.settings.max_crashes

    def __set_name__(self, owner: type, name: str) -> None:
        raise TypeError(
            f"{owner.__qualname__}.{name} is a method, and dq.{self.kind} decorates functions: where a step runs it has "
            "only its arguments. Move it out of the class, or put @staticmethod above the decorator"
        )

    def __repr__(self) -> str:
        return f"<dq.{self.kind} {self.__dq_body__.__module__}:{self.__dq_body__.__qualname__}>"

    def __reduce__(self) -> Any:
        """Travels by reference where that leads back to it, else takes its function along."""
        found = _found(self.__dq_body__)
        if found is self:
            return self.__dq_body__.__qualname__
        if isinstance(found, _Decorated) and found.__dq_body__ is self.__dq_body__:
            return _derive, (found, tuple(self.settings))
        return _make, (type(self), self.__dq_body__, tuple(self.settings))


class Step(_Decorated[P, R_co]):
    """A function whose calls inside a run are durable: recorded once, and never repeated once they are.

    Made by `dq.step`. Attributes: `name`, `executor` and `max_crashes` as given to the decorator.
    """

    kind = "step"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Inside a run: asks for the step and returns its result, or raises its exception. Elsewhere: a plain call."""
        run = context.running
        if run is None:
            if not _warned:
                _warn_inside_step(self)
            return self.__dq_body__(*args, **kwargs)
        return run.call(self, args, kwargs)  # type: ignore[no-any-return]

    @overload
    def submit(self: Step[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R_co]: ...
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Asks for the step without waiting; for use inside a workflow.

        Example:
            first, second = render.submit(1), render.submit(2)
            return first.result() + second.result()

        Raises:
            DqError: No run is running here. `engine.submit(step, ...)` submits a step alone.
        """
        run = context.running
        if run is None:
            raise DqError(
                f"{self.__name__}.submit(...) belongs into a workflow, and no run is running here. "
                f"To submit the step alone use engine.submit({self.__name__}, ...); to just run it, call it"
            )
        return run.submit(self, args, kwargs)

    @overload
    def map(self: Step[..., Coroutine[Any, Any, T]], iterable: Iterable[Any], /, *more: Iterable[Any]) -> list[T]: ...
    @overload
    def map(self, iterable: Iterable[Any], /, *more: Iterable[Any]) -> list[R_co]: ...
    def map(self, iterable: Iterable[Any], /, *more: Iterable[Any]) -> list[Any]:
        """Runs the step for each item, side by side, and returns the results in the order of the items.

        Takes several iterables like the builtin `map`. Inside a run it waits for all of them; the first step that fails
        raises its exception at once. Outside a run it calls the function for one item after the other.

        Example:
            parts = render.map(range(240))
        """
        calls = zip(iterable, *more, strict=False)
        run = context.running
        if run is not None:
            return run.map(self, calls)
        if self.is_async:
            raise DqError(
                f"{self.__name__} is async, so {self.__name__}.map(...) works inside a run only; "
                f"here use asyncio.gather(*map({self.__name__}, items))"
            )
        function: Callable[..., Any] = self.__call__
        return [function(*call) for call in calls]

    def options(self, **changes: Unpack[StepOptions]) -> Step[P, R_co]:
        """The same step with some options changed: those of `dq.step`, for this call or for all calls of what it returns.

        Example:
            heavy = render.options(executor="gpu", timeout=600)
            part = render.options(priority=5, delay=60).submit(frame)
        """
        return Step(self.__dq_body__, self.settings.change(dict(changes)))


class Workflow(_Decorated[P, R_co]):
    """A function that orchestrates steps and can be replayed from its record. Made by `dq.workflow`.

    Calling it just runs the function: outside a run its steps are plain calls, inside a run they are steps of that run.
    """

    kind = "workflow"
    schedules: tuple[Mark, ...] = ()  # what `dq.schedule` says of it

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Inside a run: starts a child run and returns its result, or raises its exception. Elsewhere: a plain call."""
        run = context.running
        if run is None:
            return self.__dq_body__(*args, **kwargs)
        return run.call(self, args, kwargs)  # type: ignore[no-any-return]

    @overload
    def submit(self: Workflow[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R_co]: ...
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Starts a child run without waiting; for use inside a workflow.

        Example:
            left, right = build.submit("left"), build.submit("right")
            return left.result() + right.result()

        Raises:
            DqError: No run is running here. `engine.start(workflow, ...)` starts a run from outside.
        """
        run = context.running
        if run is None:
            raise DqError(
                f"{self.__name__}.submit(...) belongs into a workflow, and no run is running here. "
                f"To start a run from outside use engine.start({self.__name__}, ...)"
            )
        return run.submit(self, args, kwargs)

    def map(self, iterable: Iterable[Any], /, *more: Iterable[Any]) -> list[Any]:
        """Starts a child run for each item, side by side, and returns the results in the order of the items."""
        run = context.running
        if run is None:
            raise DqError(f"{self.__name__}.map(...) belongs into a workflow, and no run is running here")
        return run.map(self, zip(iterable, *more, strict=False))

    def options(self, **changes: Unpack[WorkflowOptions]) -> Workflow[P, R_co]:
        """The same workflow with some options changed: those of `dq.workflow`.

        Example:
            report.options(detached=True).submit(month)
        """
        changed = Workflow(self.__dq_body__, self.settings.change(dict(changes)))
        changed.schedules = self.schedules
        return changed


@overload
def step(body: Callable[P, R_co], /) -> Step[P, R_co]: ...
@overload
def step(**options: Unpack[StepOptions]) -> Callable[[Callable[P, R_co]], Step[P, R_co]]: ...
def step(body: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function a step: the unit that is recorded. Use it bare or with options.

    Args:
        name: What the step is called in the record, in place of its module and name. A step that keeps its name may
            move to another module while runs that use it are under way.
        executor: Which of the engine's executors runs it; "" is the default one.
        max_crashes: After so many deaths of its worker the step is given up, and `StepCrashed` raised in the workflow.
        on_crash: What a death of its worker leads to: "retry", up to `max_crashes`; "fail", at once; "park": the step waits
            until somebody says `dq retry`.
        stop: tenacity's objects say whether a failed attempt is followed by another: `tenacity.stop_after_attempt(5)`.
        wait: How long after: `tenacity.wait_exponential_jitter()`. What it draws is recorded as a due time.
        retry: After which exceptions or results: `tenacity.retry_if_exception_type(OSError)`. Without any of the three a
            step that fails has failed; with one of them the others are tenacity's defaults.
        timeout: Seconds, or a timedelta, that one attempt may take. Then its process is killed, whatever it is doing, and
            the attempt has failed with `StepTimeout`.
        memory: Bytes that one attempt may have besides what its process had before it.
        queue: A `dq.Queue` whose limits hold for this step.
        priority: Steps with a higher one go first.
        delay: Seconds, or a timedelta, until the step may begin.
        at: The time (with its time zone) before which the step does not begin.
        dedup: While a step with the same word is open, a second one is the same step.
        dedup_for: Seconds, or a timedelta: the same for this long, whether that step has ended or not.
        debounce: Seconds, or a timedelta, that it waits before it begins. Another one with the same `dedup` meanwhile takes
            its place, with its own arguments, and waits anew; both get its result.

    Example:
        @dq.step
        def render(frame: int) -> bytes: ...

        @dq.step(executor="threads")
        def fetch(url: str) -> bytes: ...
    """
    return _decorate(Step, body, options)


@overload
def workflow(body: Callable[P, R_co], /) -> Workflow[P, R_co]: ...
@overload
def workflow(**options: Unpack[WorkflowOptions]) -> Callable[[Callable[P, R_co]], Workflow[P, R_co]]: ...
def workflow(body: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function a workflow, `def` or `async def`. Use it bare or with options.

    Everything between its steps runs again on every replay, so it must do the same each time: what depends on time,
    chance, files or the network belongs into steps.

    Args:
        name: What the workflow is called in the record, in place of its module and name.
        max_crashes: After so many deaths of the host while this run was running, the run fails.
        timeout: Seconds, or a timedelta, that a run may take. Then `RunTimeout` is raised in it, as a cancel would be.
        detached: Whether a child run of this workflow goes on when its parent ends or is cancelled.
        version: A word of yours that is recorded with each run.

    Example:
        @dq.workflow
        def movie(frames: int) -> str:
            return stitch(render.map(range(frames)))
    """
    return _decorate(Workflow, body, options)


def _decorate(kind: Callable[..., Any], body: Callable[..., Any] | None, options: dict[str, Any]) -> Any:
    settings = Settings().change(options)
    if body is None:
        return functools.partial(_wrap, kind, settings)
    return _wrap(kind, settings, body)


def _wrap(kind: Callable[..., Any], settings: Settings, body: Callable[..., Any]) -> Any:
    if isinstance(body, _Decorated):
        raise TypeError(f"{body!r} is decorated already")
    return kind(body, settings)


def _derive(base: _Decorated[Any, Any], settings: tuple[Any, ...]) -> Any:
    return _make(type(base), base.__dq_body__, settings)


def _make(kind: Callable[..., Any], body: Callable[..., Any], settings: tuple[Any, ...]) -> Any:
    return kind(body, Settings(*settings))


def _found(body: Callable[..., Any]) -> Any:
    """What a function's own module and name lead to."""
    found: Any = sys.modules.get(body.__module__)
    if body.__module__ == "__main__" and not getattr(found, "__file__", None):
        return None  # a notebook's names mean nothing elsewhere
    for part in body.__qualname__.split("."):
        found = getattr(found, part, None)
    return found


def _warn_inside_step(inner: Step[..., Any]) -> None:
    """Once in each process: what looks like a durable call in the body of a step is none."""
    current = sys.modules.get("dq.executor.current")
    if current is None or current.running.get() is None:
        return
    global _warned
    _warned = True
    warnings.warn(
        f"step {inner.__name__} is called in the body of another step, so it is a plain call: not recorded by itself, "
        "and repeated with the outer one. Call it from the workflow to make it durable",
        RuntimeWarning,
        stacklevel=3,
    )
