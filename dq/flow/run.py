"""A run in its host: a greenlet that runs the workflow's function from one rest to the next.

It rests when nothing in it can go on. Then the next completion is delivered, and only when there is none does the
greenlet hand over to the host, which comes back to it when there is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from hashlib import blake2b
from inspect import CO_COROUTINE
from typing import TYPE_CHECKING, Any, NoReturn

from greenlet import GreenletExit, greenlet

from dq.errors import Cancelled, StepCrashed
from dq.executor.frames import Block, Finish
from dq.flow import difference
from dq.flow.awaited import Completion, FlowFuture, Join, Ready
from dq.flow.fingerprint import fingerprint
from dq.flow.journal import Journal, Mismatch, Scope
from dq.model.states import CANCELLED, COMPLETED, DEAD, RunState

if TYPE_CHECKING:
    from dq.flow.decorators import Step
    from dq.flow.host import Host
    from dq.flow.journal import Target
    from dq.flow.loop import FlowLoop
    from dq.flow.registry import Function

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class Run:
    """One run. Its public methods, but for `runnable` and `greenlet`, are called in its own greenlet."""

    __slots__ = (
        "_args",
        "_host",
        "_loop",
        "callbacks",
        "ended",
        "greenlet",
        "id",
        "journal",
        "loaded",
        "name",
        "root",
        "waiting",
    )

    def __init__(self, host: Host, id: int, name: str, args: bytes) -> None:
        self.id = id
        self.name = name
        self.journal = Journal()
        self.root = Scope()
        self.callbacks: deque[Callable[[], object]] = deque()  # of delivered futures, to be called in this run
        self.waiting: Ready | None = None
        self.loaded = False  # whether its whole history is here
        self.ended = False
        self.greenlet = greenlet(self._main, host.greenlet)
        self._host = host
        self._loop: FlowLoop | None = None
        self._args = args

    def runnable(self) -> bool:
        """Whether the greenlet can go on without another delivery."""
        return self.waiting is None or self.waiting.ready or bool(self.callbacks)

    def _main(self) -> None:
        try:
            body, args, kwargs = self._prepare()
            self._finish(self._execute(body, args, kwargs))
        except BaseException as error:  # noqa: BLE001 -- whatever a workflow raises is its end, and not the host's
            self._end(Finish(self.id, RunState.FAILED, self._host.codec.failure(error)))
        finally:
            if self._loop is not None:
                self._loop.abandon()

    def _prepare(self) -> tuple[Callable[..., Any], Args, Kwargs]:
        """The code and its arguments. What fails here is the fault of what is on disk, so the run is not over."""
        try:
            body = self._host.workflow(self)
            args, kwargs = self._host.codec.loads(self._args)
        except Exception as error:  # noqa: BLE001 -- whatever an import raises
            self.block(f"the run can't begin here. {type(error).__name__}: {error}", error)
        self._args = b""
        return body, args, kwargs

    def _execute(self, body: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
        code = getattr(body, "__code__", None)
        if code is None or not code.co_flags & CO_COROUTINE:
            return body(*args, **kwargs)
        from dq.flow.loop import FlowLoop, install

        install()
        self._loop = FlowLoop(self)
        return self._loop.drive(body(*args, **kwargs))

    def _finish(self, result: Any) -> None:
        try:
            payload = self._host.codec.dumps(result, f"r{self.id}")
        except OSError as error:
            self.block(f"the result of the run can't be written. {error}", error)
        self._end(Finish(self.id, RunState.COMPLETED, payload))

    def _end(self, message: Finish | Block) -> None:
        if self.ended:  # code that has swallowed the unwinding of a blocked run
            return
        self.ended = True
        self._host.end(self, message)

    def block(self, reason: str, cause: BaseException | None = None) -> NoReturn:
        """Gives the run up for now, and unwinds its code. Never returns."""
        self._end(Block(self.id, reason))
        raise GreenletExit from cause

    def check(self) -> None:
        """Unwinds code that goes on although its run was given up."""
        if self.ended:
            raise GreenletExit

    def check_thread(self) -> None:
        """Raises RuntimeError in a thread that the workflow started."""
        if threading.get_ident() != self._host.thread:
            raise RuntimeError(
                f"a thread that run {self.name!r} has started asks for something of the run; threads run at another "
                "pace on each replay. Use step.submit or step.map for what should go on side by side"
            )

    def park(self, wanted: Ready) -> None:
        """Lets completions be delivered, one at a time, until `wanted` is ready."""
        self.check()
        before, self.waiting = self.waiting, wanted
        while not wanted.ready:
            if self.callbacks:
                self.callbacks.popleft()()
            elif not self.journal.deliver():
                self._switch()
        self.waiting = before

    def _switch(self) -> None:
        loop = self._loop
        if loop is None:
            self._host.greenlet.switch()
        else:
            task = loop.leave()
            self._host.greenlet.switch()
            loop.enter(task)

    def can_go_on(self) -> bool:
        """Whether waiting can help."""
        return self.journal.outstanding or bool(self.callbacks)

    def call(self, step: Step[..., Any], args: Args, kwargs: Kwargs) -> Any:
        """A plain call of a step."""
        if step.is_async:
            return self._call_later(step, args, kwargs)
        done = Completion()
        self._request(step, args, kwargs, done)
        self.park(done)
        return self.value(done.status, done.payload)

    async def _call_later(self, step: Step[..., Any], args: Args, kwargs: Kwargs) -> Any:
        """The coroutine of an async step: it asks for the step when it is awaited, in the scope of that task."""
        return await self.submit(step, args, kwargs)

    def submit(self, step: Step[..., Any], args: Args, kwargs: Kwargs) -> FlowFuture[Any]:
        """Asks for a step without waiting."""
        future: FlowFuture[Any] = FlowFuture(self)
        self._request(step, args, kwargs, future)
        return future

    def map(self, step: Step[..., Any], calls: Iterable[Args]) -> list[Any]:
        """Asks for many steps and waits for all, or for the first failure."""
        join = Join()
        function, scope = self._counter(step)
        for args in calls:
            self._ask(function, scope, args, {}, join, self.journal.expect_next, join.add())
        join.close()
        self.park(join)
        if join.failure is not None:
            self.value(*join.failure)
        results = join.payloads
        for index, payload in enumerate(results):  # in place, so that only one of the two is in memory
            results[index] = self.value(COMPLETED, payload)
        return results

    def _request(self, step: Step[..., Any], args: Args, kwargs: Kwargs, target: Target) -> None:
        function, scope = self._counter(step)
        self._ask(function, scope, args, kwargs, target, self.journal.expect, 0)

    def _counter(self, step: Step[..., Any]) -> tuple[Function, Scope]:
        """What a step is called on record, and the scope that counts its calls."""
        self.check()
        self.check_thread()
        return self._host.registry.find(step), self.root if self._loop is None else self._loop.scope

    def _ask(
        self,
        function: Function,
        scope: Scope,
        args: Args,
        kwargs: Kwargs,
        target: Target,
        expect: Callable[[int, Target, int], None],
        index: int,
    ) -> None:
        """Finds a step on record, or puts it there."""
        mark = fingerprint(args, kwargs)
        try:
            if self.journal.request(scope, function.name, mark, target, index):
                return
        except Mismatch as error:
            self._block_on(error, args, kwargs)
        host = self._host
        id = host.ids.take()
        try:
            payload = host.codec.dumps((args, kwargs), f"a{id}", what="arguments")
        except OSError as error:
            self.block(f"the arguments of step {function.name} can't be written. {error}", error)
        occurrence = scope.counts[function.name] - 1
        expect(id, target, index)
        host.write((id, self.id, function.number, scope.path, occurrence, mark, payload))

    def _block_on(self, error: Mismatch, args: Args, kwargs: Kwargs) -> NoReturn:
        before: Any
        try:
            before = self._host.codec.loads(error.recorded.args)
        except Exception as trouble:  # noqa: BLE001 -- the record may be of a class that is gone
            before = trouble
        where = f"{error.name}, call {error.occurrence + 1} in branch {error.scope}"
        self.block(difference.explain(where, error.name, before, (args, kwargs)))

    def value(self, status: int, payload: bytes) -> Any:
        """What a completion gives to the workflow. Raises the step's exception."""
        try:
            if status == COMPLETED:
                return self._host.codec.loads(payload)
            error = self._host.codec.restore(payload)
        except Exception as trouble:  # noqa: BLE001 -- a class that is gone, a damaged or missing file: not the workflow's fault
            self.block(f"the result of a step can't be read. {type(trouble).__name__}: {trouble}", trouble)
        if status == DEAD and not isinstance(error, StepCrashed):
            error = StepCrashed(str(error))
        elif status == CANCELLED and not isinstance(error, Cancelled):
            error = Cancelled(str(error))
        raise error

    def draw(self) -> bytes:
        """Sixteen random bytes, the same on every replay."""
        self.check_thread()
        scope = self.root if self._loop is None else self._loop.scope
        scope.draws += 1
        return self._hash(f"{scope.path}\0{scope.draws}")

    def key(self) -> str:
        """The same on every replay, and no other run's."""
        return self._hash("").hex()

    def _hash(self, text: str) -> bytes:
        data = f"{self.id}\0{self.name}\0{text}".encode(errors="surrogatepass")
        return blake2b(data, digest_size=16).digest()
