"""`@dq.step` and `@dq.workflow`: plain functions that become durable inside a run."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from dq.errors import DqError
from dq.flow import context

if TYPE_CHECKING:
    from dq.flow.future import Future
    from dq.flow.registry import Function

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_COROUTINE = 0x80  # inspect.CO_COROUTINE; inspect itself would double the time that importing dq takes
_warned = False


class _Decorated(Generic[P, R_co]):
    """A function with options. Outside a run, calling it just calls the function."""

    kind = ""
    __name__: str
    __qualname__: str

    def __init__(self, body: Callable[P, R_co], name: str = "", executor: str = "", max_crashes: int = 3) -> None:
        if not hasattr(body, "__qualname__"):  # what is callable and has none can't be found again by name
            raise TypeError(f"dq.{self.kind} decorates functions; {body!r} is a {type(body).__name__}")
        if max_crashes < 1:
            raise ValueError(f"max_crashes is {max_crashes}; it must be at least 1, since the first crash is one")
        functools.update_wrapper(cast(Callable[..., Any], self), body)
        self.__dq_body__ = body
        self.name = name
        self.executor = executor
        self.max_crashes = max_crashes
        self.registered: Function | None = None  # what the host in this process knows it as
        self.is_async = bool(getattr(getattr(body, "__code__", None), "co_flags", 0) & _COROUTINE)

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
        options = (self.name, self.executor, self.max_crashes)
        if isinstance(found, _Decorated) and found.__dq_body__ is self.__dq_body__:
            return _derive, (found, *options)
        return type(self), (self.__dq_body__, *options)


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

    def options(
        self, *, name: str | None = None, executor: str | None = None, max_crashes: int | None = None
    ) -> Step[P, R_co]:
        """The same step with some options changed.

        Example:
            heavy = render.options(executor="gpu")
        """
        return _derive(
            self,
            self.name if name is None else name,
            self.executor if executor is None else executor,
            self.max_crashes if max_crashes is None else max_crashes,
        )


class Workflow(_Decorated[P, R_co]):
    """A function that orchestrates steps and can be replayed from its record. Made by `dq.workflow`.

    Calling it just runs the function: outside a run its steps are plain calls, inside a run they are steps of that run.
    """

    kind = "workflow"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self.__dq_body__(*args, **kwargs)

    def options(self, *, name: str | None = None, max_crashes: int | None = None) -> Workflow[P, R_co]:
        """The same workflow with some options changed."""
        return _derive(
            self,
            self.name if name is None else name,
            self.executor,
            self.max_crashes if max_crashes is None else max_crashes,
        )


@overload
def step(body: Callable[P, R_co], /) -> Step[P, R_co]: ...
@overload
def step(
    *, name: str = "", executor: str = "", max_crashes: int = 3
) -> Callable[[Callable[P, R_co]], Step[P, R_co]]: ...
def step(body: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function a step: the unit that is recorded. Use it bare or with options.

    Args:
        name: What the step is called in the record, in place of its module and name. A step that keeps its name may
            move to another module while runs that use it are under way.
        executor: Which of the engine's executors runs it; "" is the default one.
        max_crashes: After so many deaths of its worker the step is given up, and `StepCrashed` raised in the workflow.

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
def workflow(*, name: str = "", max_crashes: int = 3) -> Callable[[Callable[P, R_co]], Workflow[P, R_co]]: ...
def workflow(body: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function a workflow, `def` or `async def`. Use it bare or with options.

    Everything between its steps runs again on every replay, so it must do the same each time: what depends on time,
    chance, files or the network belongs into steps.

    Args:
        name: What the workflow is called in the record, in place of its module and name.
        max_crashes: After so many deaths of the host while this run was running, the run fails.

    Example:
        @dq.workflow
        def movie(frames: int) -> str:
            return stitch(render.map(range(frames)))
    """
    return _decorate(Workflow, body, options)


def _decorate(kind: Callable[..., Any], body: Callable[..., Any] | None, options: dict[str, Any]) -> Any:
    if body is None:
        return functools.partial(kind, **options)
    if isinstance(body, _Decorated):
        raise TypeError(f"{body!r} is decorated already")
    return kind(body, **options)


D = TypeVar("D", bound="_Decorated[Any, Any]")


def _derive(base: D, name: str, executor: str, max_crashes: int) -> D:
    make: Callable[..., D] = type(base)
    return make(base.__dq_body__, name, executor, max_crashes)


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
