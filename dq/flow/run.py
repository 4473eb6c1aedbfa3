"""A run in its host: a greenlet that runs the workflow's function from one rest to the next.

It rests when nothing in it can go on. Then the next completion is delivered, and only when there is none does the
greenlet hand over to the host, which comes back to it when there is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import blake2b
from inspect import CO_COROUTINE
from typing import TYPE_CHECKING, Any, NoReturn

from greenlet import GreenletExit, greenlet

from dq.errors import Cancelled, RunTimeout, StoreError
from dq.executor.frames import Block, Finish
from dq.executor.options import TIMED_OUT
from dq.flow import difference
from dq.flow.asking import Args, Asking, Kwargs, Restart
from dq.flow.journal import Journal, Scope
from dq.model.states import RunState

if TYPE_CHECKING:
    from dq.executor.frames import Assign
    from dq.flow.awaited import Ready
    from dq.flow.decorators import Step, Workflow
    from dq.flow.home import Home
    from dq.flow.loop import FlowLoop

UNDO = "!"  # ends the name of the branch that compensations run in


class _Cancel:
    """What a cancel is delivered to."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def take(self, index: int, status: int, payload: bytes) -> None:
        self._run._cancel(payload.decode(errors="replace"))


class Run(Asking):
    """One run. Its public methods, but for `runnable` and `greenlet`, are called in its own greenlet."""

    __slots__ = (
        "_args",
        "_draws_as",
        "_host",
        "_loop",
        "_raise",
        "callbacks",
        "cancelled",
        "complete",
        "ended",
        "greenlet",
        "id",
        "journal",
        "loaded",
        "name",
        "patches",
        "root",
        "scheduled_at",
        "stalled",
        "undoing",
        "undos",
        "waiting",
    )

    def __init__(
        self, host: Home, id: int, name: str, args: bytes, created_at: int = 0,
        cancel: tuple[int, int, str] | None = None, chapter: int = 0, origin: str = "",
    ) -> None:  # fmt: skip
        self.id = id
        self.name = name
        self.journal = Journal(created_at)
        self.cancelled = ""  # why, once the run has heard of it
        self._raise: BaseException | None = None  # at the run's next wait
        self.root = Scope(str(chapter))
        self.scheduled_at = 0  # microseconds UTC; 0: no schedule has started it
        self.callbacks: list[Callable[[], object]] = []  # of delivered futures, to be called in this run
        self.waiting: Ready | None = None
        self.loaded = False  # whether the beginning of its history is here, and so it may begin
        self.complete = False  # whether all of it is
        self.stalled = False  # whether it waits for more of it
        self.undos: list[tuple[Step[..., Any] | Workflow[..., Any], Args, Kwargs]] = []
        self.undoing = False
        self.patches: dict[str, bool] = {}
        self.ended = False
        self.greenlet = greenlet(self._main, host.greenlet)
        self._host = host
        self._loop: FlowLoop | None = None
        self._args = args
        self._draws_as = origin.replace(" ", "\0", 1) or f"{id}\0{name}"
        if cancel is not None:
            self.hear_cancel(*cancel)

    @classmethod
    def assigned(cls, home: Home, told: Assign) -> Run:
        """The run that a host or a player is given."""
        run = cls(home, told.run, told.name, told.args, told.created_at, told.cancel, told.chapter, told.origin)
        run.scheduled_at = told.scheduled_at
        return run

    def hear_cancel(self, seq: int, at: int, cause: str) -> None:
        """Somebody wants the run to end; its code hears of it when its turn comes."""
        self.journal.announce(seq, _Cancel(self), cause.encode(errors="replace"), at)

    def _cancel(self, cause: str) -> None:
        """The code hears of it now. What it has under way ends too; what it begins after this does not."""
        self.cancelled = cause
        if self.undoing:
            return  # it is ending already, and what it undoes is not to be cut off
        for step in self.journal.open_ids():
            self._host.withdraw(self.id, step)
        if self._loop is not None:
            self._loop.cancel()
        else:
            self._raise = self._cancellation()

    def _cancellation(self) -> BaseException:
        kind = RunTimeout if self.cancelled == TIMED_OUT else Cancelled
        return kind(f"run {self.name!r}: {self.cancelled}")

    def runnable(self) -> bool:
        """Whether the greenlet can go on without another delivery."""
        if self.stalled:
            return False
        return self.waiting is None or self.waiting.ready or bool(self.callbacks or self._raise)

    def _main(self) -> None:
        try:
            body, args, kwargs = self._prepare()
            self._finish(self._chapters(body, args, kwargs))
        except BaseException as error:  # noqa: BLE001 -- whatever a workflow raises is its end, and not the host's
            self._fail(error)
        finally:
            if self._loop is not None:
                self._loop.abandon()

    def _fail(self, error: BaseException) -> None:
        if not self.ended:
            self._undo(error)
        state = RunState.FAILED
        if self.cancelled and type(error).__name__ == "CancelledError":
            error = self._cancellation()
        if self.cancelled and isinstance(error, Cancelled) and self.cancelled != TIMED_OUT:
            state = RunState.CANCELLED
        self._end(Finish(self.id, state, self._host.codec.failure(error)))

    def _chapters(self, body: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
        while True:
            try:
                return self._execute(body, args, kwargs)
            except Restart as restart:
                args, kwargs = restart.call
                self._turn_over()

    def _turn_over(self) -> None:
        """The next chapter: nothing of what was is asked for again."""
        if self._loop is not None:
            self._loop.abandon()
            self._loop = None
        self.root = Scope(str(int(self.root.path) + 1))
        self.journal.restart()
        self.patches.clear()

    def _undo(self, error: BaseException) -> None:
        """Runs the compensations, last first. They are steps like others, so a crash in the middle costs nothing."""
        if not self.undos:
            return
        self.undoing = True
        self.root = Scope(self.root.path + UNDO)
        self._raise = None
        if self._loop is not None:
            self._loop.abandon()
            self._loop = None
        while self.undos:
            step, args, kwargs = self.undos.pop()
            try:
                self.submit(step, args, kwargs).result()
            except Exception as trouble:  # noqa: BLE001 -- the others are to be undone all the same
                error.add_note(f"compensation {step.__name__} failed: {type(trouble).__name__}: {trouble}")

    def _prepare(self) -> tuple[Callable[..., Any], Args, Kwargs]:
        """The code and its arguments. What fails here is the fault of what is on disk, so the run is not over."""
        try:
            body = self._host.workflow(self)
            args, kwargs = self._host.codec.load_call(self._args)
        except Exception as error:  # noqa: BLE001 -- whatever an import raises
            self.block(f"the run can't begin here. {type(error).__name__}: {error}", error)
        self._args = b""
        return body, args, kwargs

    def _execute(self, body: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
        code = getattr(body, "__code__", None)
        is_async = code is not None and code.co_flags & CO_COROUTINE
        try:
            made = body(*args, **kwargs)
        except TypeError as error:
            trace = error.__traceback__
            if self.journal.is_old and trace is not None and trace.tb_next is None:  # it has not even begun
                self.block(difference.misfit(body, args, kwargs, error), error)
            raise
        if not is_async:
            return made
        from dq.flow.loop import FlowLoop, install

        install()
        self._loop = FlowLoop(self)
        return self._loop.drive(made)

    def _finish(self, result: Any) -> None:
        try:
            payload = self._host.codec.dumps(result, f"r{self.id}")
        except (OSError, StoreError) as error:
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
                self.callbacks.pop(0)()
            elif not self.journal.deliver():
                self._switch()
        self.waiting = before

    def await_history(self) -> None:
        """Waits until more of the record is here; nothing is delivered meanwhile."""
        self.check()
        self.stalled = True
        self._host.more(self.id)
        while self.stalled:
            self._switch()
        self.check()

    def _switch(self) -> None:
        loop = self._loop
        if loop is None:
            self._host.greenlet.switch()
        else:
            task = loop.leave()
            try:
                self._host.greenlet.switch()
            finally:
                loop.enter(task)

    def can_go_on(self) -> bool:
        """Whether waiting can help."""
        return self.journal.outstanding or bool(self.callbacks)

    def draw(self) -> bytes:
        """Sixteen random bytes, the same on every replay."""
        self.check_thread()
        scope = self._scope
        scope.draws += 1
        return self._hash(f"{scope.path}\0{scope.draws}")

    def key(self) -> str:
        """The same on every replay and in forks of this run, and no other run's."""
        return self._hash("").hex()

    def _hash(self, text: str) -> bytes:
        data = f"{self._draws_as}\0{text}".encode(errors="surrogatepass")
        return blake2b(data, digest_size=16).digest()
