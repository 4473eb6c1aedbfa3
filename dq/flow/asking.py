"""What a run asks for, and what it gets for it: steps, child runs, timers, signals, notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from dq.errors import Cancelled, DqError, SignatureMismatch, StepCrashed, StoreError
from dq.executor.options import CHECKPOINT, PATCHED, SEND_SIGNAL, SLEEP
from dq.flow import difference
from dq.flow.awaited import Completion, FlowFuture, Join, Ready
from dq.flow.fingerprint import fingerprint
from dq.flow.journal import Ignored, Journal, Mismatch, Scope
from dq.model.states import CANCELLED, COMPLETED, DEAD

if TYPE_CHECKING:
    from dq.executor.frames import Term
    from dq.flow.decorators import Step, Workflow
    from dq.flow.home import Home
    from dq.flow.journal import Target
    from dq.flow.loop import FlowLoop
    from dq.flow.registry import Function

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class Restart(BaseException):
    """The workflow begins again with other arguments, and a fresh history."""

    def __init__(self, args: Args, kwargs: Kwargs) -> None:
        super().__init__()
        self.call = args, kwargs


class _Dropped:
    """Ready when what the code has cancelled has ended."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @property
    def ready(self) -> bool:
        return not self._journal.dropping


class Asking:
    """The half of a run that its workflow's code talks to. The other half, its life, is `run.Run`."""

    __slots__ = ()

    id: int
    name: str
    journal: Journal
    root: Scope
    complete: bool
    patches: dict[str, bool]  # what this chapter has decided on changes of the code
    callbacks: list[Callable[[], object]]
    undos: list[tuple[Step[..., Any] | Workflow[..., Any], Args, Kwargs]]
    _host: Home
    _loop: FlowLoop | None

    def park(self, wanted: Ready) -> None:
        """Lets completions be delivered, one at a time, until `wanted` is ready."""
        raise NotImplementedError

    def await_history(self) -> None:
        """Waits until more of the record is here."""
        raise NotImplementedError

    def block(self, reason: str, cause: BaseException | None = None) -> NoReturn:
        """Gives the run up for now."""
        raise NotImplementedError

    def check(self) -> None:
        """Unwinds code that goes on although its run was given up."""
        raise NotImplementedError

    def check_thread(self) -> None:
        """Raises RuntimeError in a thread that the workflow started."""
        raise NotImplementedError

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
        if self.journal.awaits(step):  # a replay comes by here again
            self._host.withdraw(self.id, step)

    def begin(
        self,
        name: str,
        target: Target,
        told: Args = (),
        call: tuple[Args, Kwargs] | None = None,
        term: Term | None = None,
    ) -> int:
        """Asks for something that the supervisor itself ends, and returns its id.

        Args:
            name: One of `dq.executor.options`, perhaps with a word of the user's behind it.
            target: What its end is delivered to.
            told: What must be the same on replay.
            call: What is recorded as its arguments, where that is more than `told`.
            term: What else the supervisor must know of it.
        """
        self.check()
        self.check_thread()
        function = self._host.registry.builtin(name)
        scope = self._scope
        args, kwargs = call or (told, {})
        return self._ask(function, scope, args, kwargs, target, self.journal.expect, 0, term, fingerprint(told, {}))

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

    def signal(self, run: str, name: str, payload: Any) -> Any:
        """Sends a signal to another run, and waits until it is on record: see `dq.signal`."""
        from dq.executor.frames import Term

        self.check_thread()
        scope, data = self._scope, b""
        while not (self.complete or self.journal.knows(scope, SEND_SIGNAL)):
            self.await_history()
        if not self.journal.knows(scope, SEND_SIGNAL):
            data = self._host.codec.dumps(payload, f"g{self.id}", what="signal")
        return self.wait_for(SEND_SIGNAL, (run, name), Term(0, key=run, topic=name, data=data))

    def note(self, name: str, told: Args, args: Args, term: Term) -> None:
        """Puts something on record that is not waited for. `told` must be the same on replay."""
        self.begin(name, Ignored(), told, (args, {}), term)

    def checkpoint(self, args: Args, kwargs: Kwargs) -> NoReturn:
        """Begins the workflow again with these arguments: see `dq.checkpoint`."""
        if self.undos:
            raise DqError(
                "dq.checkpoint(...) would forget the compensations that are registered; it belongs before them"
            )
        if self.journal.under_way:
            raise DqError("dq.checkpoint(...) would forget steps that are under way; wait for them first")
        self.park(_Dropped(self.journal))  # a replay of the next chapter would not cancel them again
        done = Completion()
        self.begin(CHECKPOINT, done, call=(args, kwargs))
        self.park(done)
        raise Restart(args, kwargs)

    def compensate(self, step: Step[..., Any] | Workflow[..., Any], args: Args, kwargs: Kwargs) -> None:
        """Registers what undoes something, should the run fail."""
        self.check_thread()
        self.undos.append((step, args, kwargs))

    def patched(self, name: str) -> bool:
        """Whether the code after a change is to be taken: see `dq.patched`."""
        self.check()
        taken = self.patches.get(name)
        if taken is None:
            taken = self.patches[name] = self._patched(f"{PATCHED} {name}")
        return taken

    def _patched(self, marker: str) -> bool:
        """The first time decides. Only a yes is on record, since a run that was past this point has no room for it."""
        scope = self._scope
        while not (self.complete or self.journal.knows(scope, marker) or self.journal.replays(scope.path)):
            self.await_history()
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
        while not (self.complete or self.journal.knows(scope, function.name)):
            self.await_history()
        try:
            if known := self.journal.request(scope, function.name, mark, target, index):
                return known
        except Mismatch as error:
            self._block_on(error, args, kwargs)
        host = self._host
        id = host.ids.take()
        try:
            payload = host.codec.dumps((args, kwargs), f"a{id}", what="arguments")
        except (OSError, StoreError) as error:
            self.block(f"the arguments of step {function.name} can't be written. {error}", error)
        occurrence = scope.counts[function.name] - 1
        expect(id, target, index)
        host.write((id, self.id, function.number, scope.path, occurrence, mark, payload), term)
        return id

    def _block_on(self, error: Mismatch, args: Args, kwargs: Kwargs) -> NoReturn:
        before: Any
        try:
            before = self._host.codec.load_call(error.recorded.args)
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
        if isinstance(error, SignatureMismatch):  # a worker has met it: it is no failure of the step's logic
            self.block(f"a step was not begun. SignatureMismatch: {error}", error)
        if status == DEAD and not isinstance(error, StepCrashed):
            error = StepCrashed(str(error))
        elif status == CANCELLED and not isinstance(error, Cancelled):
            error = Cancelled(str(error))
        raise error
