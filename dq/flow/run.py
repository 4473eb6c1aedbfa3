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

from dq.errors import Cancelled, RunTimeout, StepCrashed
from dq.executor.frames import Block, Finish
from dq.executor.options import PATCHED, SLEEP
from dq.flow import difference
from dq.flow.awaited import Completion, FlowFuture, Join, Ready
from dq.flow.fingerprint import fingerprint
from dq.flow.journal import Ignored, Journal, Mismatch, Scope
from dq.model.states import CANCELLED, COMPLETED, DEAD, RunState

if TYPE_CHECKING:
    from dq.executor.frames import Term
    from dq.flow.decorators import Step, Workflow
    from dq.flow.host import Host
    from dq.flow.journal import Target
    from dq.flow.loop import FlowLoop
    from dq.flow.registry import Function

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


TIMED_OUT = "it has run out of time"


class _Cancel:
    """What a cancel is delivered to."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def take(self, index: int, status: int, payload: bytes) -> None:
        self._run._cancel(payload.decode(errors="replace"))


class Run:
    """One run. Its public methods, but for `runnable` and `greenlet`, are called in its own greenlet."""

    __slots__ = (
        "_args",
        "_host",
        "_loop",
        "_raise",
        "callbacks",
        "cancelled",
        "ended",
        "greenlet",
        "id",
        "journal",
        "loaded",
        "name",
        "root",
        "waiting",
    )

    def __init__(
        self, host: Host, id: int, name: str, args: bytes, created_at: int = 0,
        cancel: tuple[int, int, str] | None = None,
    ) -> None:  # fmt: skip
        self.id = id
        self.name = name
        self.journal = Journal(created_at)
        self.cancelled = ""  # why, once the run has heard of it
        self._raise: BaseException | None = None  # at the run's next wait
        self.root = Scope()
        self.callbacks: deque[Callable[[], object]] = deque()  # of delivered futures, to be called in this run
        self.waiting: Ready | None = None
        self.loaded = False  # whether its whole history is here
        self.ended = False
        self.greenlet = greenlet(self._main, host.greenlet)
        self._host = host
        self._loop: FlowLoop | None = None
        self._args = args
        if cancel is not None:
            self.hear_cancel(*cancel)

    def hear_cancel(self, seq: int, at: int, cause: str) -> None:
        """Somebody wants the run to end; its code hears of it when its turn comes."""
        self.journal.announce(seq, _Cancel(self), cause.encode(errors="replace"), at)

    def _cancel(self, cause: str) -> None:
        """The code hears of it now. What it has under way ends too; what it begins after this does not."""
        self.cancelled = cause
        for step in self.journal.open_ids():
            self.withdraw(step)
        if self._loop is not None:
            self._loop.cancel()
        else:
            self._raise = self._cancellation()

    def _cancellation(self) -> BaseException:
        kind = RunTimeout if self.cancelled == TIMED_OUT else Cancelled
        return kind(f"run {self.name!r}: {self.cancelled}")

    def runnable(self) -> bool:
        """Whether the greenlet can go on without another delivery."""
        return self.waiting is None or self.waiting.ready or bool(self.callbacks or self._raise)

    def _main(self) -> None:
        try:
            body, args, kwargs = self._prepare()
            self._finish(self._execute(body, args, kwargs))
        except BaseException as error:  # noqa: BLE001 -- whatever a workflow raises is its end, and not the host's
            self._fail(error)
        finally:
            if self._loop is not None:
                self._loop.abandon()

    def _fail(self, error: BaseException) -> None:
        state = RunState.FAILED
        if self.cancelled and type(error).__name__ == "CancelledError":
            error = self._cancellation()
        if self.cancelled and isinstance(error, Cancelled) and self.cancelled != TIMED_OUT:
            state = RunState.CANCELLED
        self._end(Finish(self.id, state, self._host.codec.failure(error)))

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
        while not wanted.ready or self._raise is not None:
            if self._raise is not None:
                error, self._raise = self._raise, None
                self.waiting = before
                raise error
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

    def call(self, step: Step[..., Any] | Workflow[..., Any], args: Args, kwargs: Kwargs) -> Any:
        """A plain call of a step or of a child workflow."""
        if step.is_async:
            return self._call_later(step, args, kwargs)
        done = Completion()
        self._request(step, args, kwargs, done)
        self.park(done)
        return self.value(done.status, done.payload)

    async def _call_later(self, step: Step[..., Any] | Workflow[..., Any], args: Args, kwargs: Kwargs) -> Any:
        """The coroutine of an async step: it asks for the step when it is awaited, in the scope of that task."""
        return await self.submit(step, args, kwargs)

    def submit(self, step: Step[..., Any] | Workflow[..., Any], args: Args, kwargs: Kwargs) -> FlowFuture[Any]:
        """Asks for a step without waiting."""
        future: FlowFuture[Any] = FlowFuture(self)
        future.step = self._request(step, args, kwargs, future)
        return future

    def withdraw(self, step: int) -> None:
        """Asks for the end of a step that is under way. One that has ended is not changed by it."""
        self._host.withdraw(self.id, step)

    def begin(
        self, name: str, target: Target, told: tuple[Any, ...] = (), value: Any = None, term: Term | None = None
    ) -> int:
        """Asks for something that the supervisor itself ends, and returns its id.

        Args:
            name: One of `dq.executor.options`, perhaps with a word of the user's behind it.
            target: What its end is delivered to.
            told: What must be the same on replay.
            value: What is recorded as its arguments.
            term: What else the supervisor must know of it.
        """
        self.check()
        self.check_thread()
        function = self._host.registry.builtin(name)
        scope = self._scope
        mark = fingerprint(told, {})
        return self._ask(function, scope, told or (value,), {}, target, self.journal.expect, 0, term, mark)

    def timer(self, micros: int, target: Target) -> int:
        """Has `target` told after that many microseconds; returns the id to withdraw it by.

        One that is on record keeps its due time, also where the code names another by now.
        """
        from dq.executor.frames import Term

        return self.begin(SLEEP, target, term=Term(0, after=max(micros, 1)))

    def wait_for(self, name: str, told: tuple[Any, ...], term: Term) -> Any:
        """Waits for what the supervisor ends. In an async workflow the future to await."""
        if self._loop is not None:
            future: FlowFuture[Any] = FlowFuture(self)
            future.step = self.begin(name, future, told, term=term)
            return future
        done = Completion()
        self.begin(name, done, told, term=term)
        self.park(done)
        return self.value(done.status, done.payload)

    def note(self, name: str, told: tuple[Any, ...], value: Any, term: Term) -> None:
        """Puts something on record that is not waited for."""
        self.begin(name, Ignored(), told, value, term)

    def patched(self, name: str) -> bool:
        """Whether the code after a change is to be taken: see `dq.patched`."""
        self.check()
        scope, marker = self._scope, f"{PATCHED} {name}"
        if not self.journal.knows(scope, marker) and self.journal.replays(scope.path):
            return False
        self.begin(marker, Ignored())
        return True

    @property
    def _scope(self) -> Scope:
        return self.root if self._loop is None else self._loop.scope

    @property
    def now(self) -> int:
        """The run's own time in microseconds UTC: when what it has heard of last came about."""
        return self.journal.now

    def map(self, step: Step[..., Any] | Workflow[..., Any], calls: Iterable[Args]) -> list[Any]:
        """Asks for many steps and waits for all, or for the first failure."""
        join = Join()
        function, scope = self._counter(step)
        for args in calls:
            term = step.settings.term(0, args, {}) if step.has_term else None
            self._ask(function, scope, args, {}, join, self.journal.expect_next, join.add(), term)
        join.close()
        self.park(join)
        if join.failure is not None:
            self.value(*join.failure)
        results = join.payloads
        for index, payload in enumerate(results):  # in place, so that only one of the two is in memory
            results[index] = self.value(COMPLETED, payload)
        return results

    def _request(self, step: Step[..., Any] | Workflow[..., Any], args: Args, kwargs: Kwargs, target: Target) -> int:
        function, scope = self._counter(step)
        term = step.settings.term(0, args, kwargs) if step.has_term else None
        return self._ask(function, scope, args, kwargs, target, self.journal.expect, 0, term)

    def _counter(self, step: Step[..., Any] | Workflow[..., Any]) -> tuple[Function, Scope]:
        """What a step is called on record, and the scope that counts its calls."""
        self.check()
        self.check_thread()
        return self._host.registry.find(step), self._scope

    def _ask(
        self,
        function: Function,
        scope: Scope,
        args: Args,
        kwargs: Kwargs,
        target: Target,
        expect: Callable[[int, Target, int], None],
        index: int,
        term: Term | None = None,
        mark: bytes = b"",
    ) -> int:
        """Finds a step on record, or puts it there. Returns its id."""
        mark = mark or fingerprint(args, kwargs)
        try:
            if known := self.journal.request(scope, function.name, mark, target, index):
                return known
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
        host.write((id, self.id, function.number, scope.path, occurrence, mark, payload), term)
        return id

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
        scope = self._scope
        scope.draws += 1
        return self._hash(f"{scope.path}\0{scope.draws}")

    def key(self) -> str:
        """The same on every replay, and no other run's."""
        return self._hash("").hex()

    def _hash(self, text: str) -> bytes:
        data = f"{self.id}\0{self.name}\0{text}".encode(errors="surrogatepass")
        return blake2b(data, digest_size=16).digest()
