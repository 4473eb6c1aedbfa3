"""The event loop of an async workflow: it runs what is ready, in order, and rests when nothing is.

There is no clock and no selector in it, so the order in which tasks run follows from the order of the deliveries alone,
live and on replay alike. asyncio's own tasks, gather, wait, TaskGroup, locks and queues work on it unchanged.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import weakref
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from dq.errors import DqError
from dq.model.states import COMPLETED

if TYPE_CHECKING:
    from dq.flow.journal import Scope
    from dq.flow.run import Run

T = TypeVar("T")


class FlowTask(asyncio.Task[T]):
    """A branch of a run: it counts its steps in a scope of its own."""

    def __init__(self, coro: Any, *, scope: Scope, number: int, **options: Any) -> None:
        self.scope = scope
        self.number = number
        self._hash = hash((0, number))
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        """The same on every replay and in forks, so that a set of tasks has the same order too."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other


class FlowTimer(asyncio.TimerHandle):
    """A timer that is on record."""

    step = 0

    @property
    def let_go(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.cancelled()

    def take(self, index: int, status: int, payload: bytes) -> None:
        """It is due, or nobody wants it any more."""
        if status == COMPLETED and not self.cancelled():
            self._loop.fire(self)  # type: ignore[attr-defined]


class FlowLoop(asyncio.BaseEventLoop):
    """The loop of one run."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._queue: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        self._run = run
        self._count = 0
        self._main: FlowTask[Any] | None = None
        self._tasks: weakref.WeakSet[FlowTask[Any]] = weakref.WeakSet()
        self.set_task_factory(self._make_task)

    @property
    def ready(self) -> bool:
        return bool(self._queue)

    @property
    def scope(self) -> Scope:
        """The scope of the task that runs now."""
        task = asyncio.current_task(self)
        return task.scope if isinstance(task, FlowTask) else self._run.root

    def drive(self, body: Coroutine[Any, Any, T]) -> T:
        """Runs an async workflow to its end, and then what is left of its tasks."""
        self.enter(None)
        try:
            main = self._main = self._make_task(self, body, scope=self._run.root)
            self._until([main])
            left = sorted(filter(_pending, self._tasks), key=lambda task: task.number)
            for task in left:
                task.cancel()
            self._until(left)
            return cast(T, main.result())
        finally:
            events._set_running_loop(None)

    def _until(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        queue, run, waiting = self._queue, self._run, list(tasks)
        while waiting:
            if waiting[-1].done():
                waiting.pop()
                continue
            if not queue:
                if not run.can_go_on():
                    raise DqError(
                        "the workflow waits for something that nothing can bring about: no step is under way, and "
                        "no task is ready"
                    )
                run.park(self)
            for _ in range(len(queue)):
                handle = queue.popleft()
                if not handle.cancelled():
                    handle._run()
                run.check()

    def leave(self) -> asyncio.Task[Any] | None:
        """Steps aside in the middle of a callback, so that other runs' loops can run in this thread."""
        task = asyncio.current_task(self)
        if task is not None and _swap is not None:
            _swap(self, None)
        events._set_running_loop(None)
        return task

    def enter(self, task: asyncio.Task[Any] | None) -> None:
        """Comes back from `leave`."""
        events._set_running_loop(self)
        if task is not None and _swap is not None:
            _swap(self, task)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Any, *, scope: Scope | None = None, **options: Any
    ) -> FlowTask[Any]:
        self._count += 1
        scope = scope or self.scope.branch()
        task: FlowTask[Any] = FlowTask(coro, scope=scope, number=self._count, loop=loop, **options)
        self._tasks.add(task)
        return task

    def abandon(self) -> None:
        """Lets go of all tasks without a word: their run is blocked, and will be replayed."""
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            body = task.get_coro()
            if inspect.iscoroutine(body) and inspect.getcoroutinestate(body) == inspect.CORO_CREATED:
                body.close()  # nothing of it has run, and nothing will
        self._queue.clear()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._run.ended:
            super().call_exception_handler(context)

    def __del__(self) -> None:
        """There is nothing to close."""

    def time(self) -> float:
        """The run's own time: seconds since 1970, the same on every replay."""
        return self._run.now / 1_000_000

    def cancel(self) -> None:
        """Cancels the workflow's main task, as asyncio's own runner does at Ctrl-C."""
        if self._main is not None:
            self._main.cancel()

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """A durable timer. What is due by the run's own time is called at once."""
        delay = when - self.time()
        if delay <= 0:
            return self.call_soon(callback, *args, context=context)
        handle = FlowTimer(when, callback, args, self, context)
        handle.step = self._run.timer(math.ceil(delay * 1_000_000), handle)
        return handle

    def fire(self, timer: FlowTimer) -> None:
        self._queue.append(timer)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if isinstance(handle, FlowTimer) and handle.step:
            self._run.withdraw(handle.step)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        self._run.check_thread()
        return self.call_soon(callback, *args, context=context)


def _pending(task: FlowTask[Any]) -> bool:
    return not task.done()


def _refuse(name: str, what: str) -> Callable[..., NoReturn]:
    def refuse(self: FlowLoop, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"{what} in a workflow would happen again on each replay ({name}); put that into a step and call it"
        )

    refuse.__name__ = name
    return refuse


_REFUSED = {
    "threads": ("run_in_executor", "set_default_executor", "getaddrinfo", "getnameinfo"),
    "signal handlers": ("add_signal_handler", "remove_signal_handler"),
    "subprocesses": ("subprocess_exec", "subprocess_shell"),
    "network connections": (
        *("create_connection", "create_server", "create_unix_connection", "create_unix_server", "start_tls"),
        *("create_datagram_endpoint", "connect_accepted_socket", "sendfile", "sock_sendfile", "sock_accept"),
        *("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto"),
        "sock_connect",
    ),
    "files and pipes": (
        *("add_reader", "remove_reader", "add_writer", "remove_writer"),
        *("connect_read_pipe", "connect_write_pipe"),
    ),
    "running the loop by hand": ("run_forever", "run_until_complete"),
}
for _what, _names in _REFUSED.items():
    for _name in _names:
        setattr(FlowLoop, _name, _refuse(_name, _what))

_swap: Callable[[Any, Any], Any] | None = getattr(asyncio.tasks, "_swap_current_task", None)
_as_completed = asyncio.tasks.as_completed


def _ordered_as_completed(fs: Iterable[Any], *, timeout: float | None = None) -> Any:
    """Makes the tasks itself: asyncio makes them in the order of a set of coroutines, which differs between processes."""
    loop = events._get_running_loop()
    if isinstance(loop, FlowLoop):
        fs = [asyncio.ensure_future(awaitable, loop=loop) for awaitable in fs]
    return _as_completed(fs, timeout=timeout)


def install() -> None:
    """Makes `asyncio.as_completed` deterministic in workflows; for a process that is a host."""
    asyncio.as_completed = asyncio.tasks.as_completed = _ordered_as_completed
