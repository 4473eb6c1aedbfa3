"""What a run waits for: one completion, the completions of a fan-out, or a future that it may hold on to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future as BaseFuture
from concurrent.futures._base import FINISHED
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast

from dq.flow.future import Future
from dq.flow.settings import micros
from dq.model.states import COMPLETED

if TYPE_CHECKING:
    import asyncio

    from dq.flow.journal import Target

R = TypeVar("R")
_ABSENT = b""  # no payload is empty


class Ready(Protocol):
    """What a run can be parked on."""

    @property
    def ready(self) -> bool: ...


class Desk(Protocol):
    """The run that a future belongs to."""

    name: str
    callbacks: list[Callable[[], object]]

    def park(self, wanted: Ready) -> None: ...
    def withdraw(self, step: int) -> None: ...
    def timer(self, micros: int, target: Target) -> int: ...
    def value(self, status: int, payload: bytes) -> Any: ...


class Completion:
    """One step's end, for a call that does not outlive it."""

    __slots__ = ("payload", "ready", "status")

    def __init__(self) -> None:
        self.ready = False
        self.status = COMPLETED
        self.payload = _ABSENT

    def take(self, index: int, status: int, payload: bytes) -> None:
        self.status = status
        self.payload = payload
        self.ready = True


class Join:
    """The ends of many steps, in order of their places. It is ready when all are here, or as soon as one failed."""

    __slots__ = ("_left", "_open", "failure", "payloads")

    def __init__(self) -> None:
        self.payloads: list[Any] = []
        self.failure: tuple[int, bytes] | None = None  # status and payload of the first that was delivered
        self._left = 0
        self._open = True

    def add(self) -> int:
        """The place of one more step."""
        self.payloads.append(_ABSENT)
        self._left += 1
        return len(self.payloads) - 1

    def close(self) -> None:
        """No more steps will be added."""
        self._open = False

    @property
    def ready(self) -> bool:
        return self.failure is not None or not (self._left or self._open)

    def take(self, index: int, status: int, payload: bytes) -> None:
        self._left -= 1
        if status == COMPLETED:
            self.payloads[index] = payload
        elif self.failure is None:
            self.failure = (status, payload)


class Watch:
    """Some futures, and how many of them have to be there until it is ready. It may be given a time."""

    let_go = True  # nobody is told of its timer once the code is past it

    def __init__(self, needed: int) -> None:
        self.came: deque[FlowFuture[Any]] = deque()  # in the order of their delivery
        self.needed = needed
        self.over = False  # whether the time is up

    @property
    def ready(self) -> bool:
        return self.over or len(self.came) >= self.needed

    def note(self, future: FlowFuture[Any]) -> None:
        self.came.append(future)

    def take(self, index: int, status: int, payload: bytes) -> None:
        """The timer has fired, or is not wanted any more."""
        self.over = status == COMPLETED

    def wait(self, run: Desk, micros: int) -> bool:
        """Parks the run until enough are here; False where the time was up before."""
        if not self.ready:
            timer = run.timer(micros, self)
            run.park(self)
            if not self.over:
                run.withdraw(timer)
        return len(self.came) >= self.needed


class FlowFuture(Future[R]):
    """The future that `Step.submit` returns inside a run.

    Waiting on it parks the run and holds no process. `done()` becomes true only when the run hears of the result, which
    happens at the same point of the workflow on every replay. In an async workflow it can be awaited.
    """

    def __init__(self, run: Desk) -> None:
        self._run = run
        self._status = COMPLETED
        self._open = True  # the result has not been decoded
        self._awaiting: list[asyncio.Future[None]] | None = None
        self._watches: list[Watch] | None = None
        self.step = 0  # its id, as soon as it is asked for
        self.dropped = False  # whether it was cancelled

    @property
    def let_go(self) -> bool:
        """Whether the code does without its result."""
        return self.dropped

    @property
    def ready(self) -> bool:
        return self._state == FINISHED

    def take(self, index: int, status: int, payload: bytes) -> None:
        self._status = status
        self._payload = payload
        self._state = FINISHED
        for waiter in self._awaiting or ():
            if not waiter.done():
                waiter.set_result(None)
        for watch in self._watches or ():
            watch.note(self)
        for callback in self._callbacks or ():
            self._run.callbacks.append(partial(callback, self))

    def watch(self, watch: Watch) -> None:
        """Has the watch told when the result is delivered; at once if it is here."""
        if self._state == FINISHED:
            watch.note(self)
        else:
            if self._watches is None:
                self._watches = []
            self._watches.append(watch)

    def result(self, timeout: float | None = None) -> R:
        """Waits for the step and returns its result.

        Raises:
            Exception: The step's own exception; `StepCrashed` when it killed its workers.
            TimeoutError: It has none within `timeout` seconds; that is recorded, and happens again on each replay.
        """
        self._wait(timeout)
        if self._open:
            try:
                self._value = self._run.value(self._status, self._payload)
            except Exception as error:  # noqa: BLE001 -- the step's own, kept for whoever asks
                self._error = error
            self._open = False
            self._payload = _ABSENT
        if self._error is not None:
            raise self._error
        return cast(R, self._value)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits for the step and returns its exception, None if it has none. Raises like `result` on a timeout."""
        self._wait(timeout)
        try:
            self.result()
        except Exception as error:
            if error is not self._error:
                raise
        return self._error

    def _wait(self, timeout: float | None) -> None:
        if self._state == FINISHED:
            return
        if timeout is None:
            self._run.park(self)
            return
        watch = Watch(1)
        self.watch(watch)
        if not watch.wait(self._run, micros(timeout)):
            if self._watches:
                self._watches.remove(watch)  # code that looks again and again would leave one each time
            raise TimeoutError(f"step {self.step} has no result within {timeout} s; it goes on")

    def __await__(self) -> Generator[Any, None, R]:
        if self._state != FINISHED:
            import asyncio

            waiter = asyncio.get_running_loop().create_future()
            if self._awaiting is None:
                self._awaiting = []
            self._awaiting.append(waiter)
            try:
                yield from waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self.result()

    def done(self) -> bool:
        return self._state == FINISHED

    def running(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def cancel(self) -> bool:
        """Asks for the end of the step: one that runs is killed. What came of it is delivered like any result.

        Says whether there was anything to cancel.
        """
        if self._state == FINISHED:
            return False
        self.dropped = True
        self._run.withdraw(self.step)
        return True

    def add_done_callback(self, fn: Callable[[BaseFuture[R]], object]) -> None:
        """Has `fn` called with this future, in the run, when the result is delivered; at once if it is here."""
        if self._state == FINISHED:
            fn(self)
        else:
            self._done_callbacks.append(fn)

    @property
    def _condition(self) -> NoReturn:  # type: ignore[override]
        raise RuntimeError(
            "concurrent.futures.wait and as_completed would stop the host of this run and all its other runs; "
            "use dq.wait, dq.as_completed or dq.gather, or an async workflow"
        )

    def __repr__(self) -> str:
        return f"<dq.Future of run {self._run.name!r}: {'delivered' if self.done() else 'waiting'}>"
