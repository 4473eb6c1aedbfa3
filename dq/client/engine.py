"""The engine: what a program holds while it has workflows and steps done."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from dq.client import ending, ids, listing, signed, starting, steering
from dq.client.census import Crew, Member
from dq.client.launcher import Launcher, Options
from dq.client.letters import Letters
from dq.client.queues import Queues
from dq.client.run import Run, find
from dq.client.starting import Starting
from dq.client.stream import Stream
from dq.client.tables import Tables
from dq.client.timetable import Timetable
from dq.client.upkeep import Upkeep, kept
from dq.errors import GuardMissing
from dq.executor import current, signing
from dq.flow.decorators import Step, Workflow
from dq.model.states import RunState

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

    from dq.client.listing import RunInfo
    from dq.flow.future import Future

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Engine(Letters, Queues, Starting, Tables, Timetable, Upkeep):
    """Runs workflows and steps that are recorded in one SQLite file.

    It attaches to the supervisor that works on the file, or starts one as a child of this process and stops it at the
    end. Dead workers and dead supervisors are replaced meanwhile; runs and futures stay valid.

    Args:
        path: The database file; it is made if there is none, its folder is not.
        workers: How many worker processes; None for one a core. Counts only where a supervisor is started.
        executors: More executors by name, such as {"io": "thread:64"}, for `@dq.step(executor="io")`.
        start_method: "fork" (from a clean template) or "spawn".
        hang: Seconds without a sign of life after which a worker is killed and replaced.
        grace: Seconds that running steps have to finish when the engine stops.
        recycle_steps: A worker process is replaced after so many steps; None for never.
        recycle_rss: The same for bytes that it has in memory.
        keep: How long what has ended stays on record, as with `gc`; None for ever. Looked after hourly.
        signing_key: Signs every payload, and has every payload checked before it is unpickled: 32 bytes or more, or a
            pathlib.Path of a file of mode 0600 that holds them. See docs/security.md.

    Raises:
        StoreError: The file can't be used; the subclass and the message say why.
        SignatureMismatch: The supervisor has another signing key, or others can read the file with the key.
        SupervisorLost: The supervisor ended before it was ready.
        BadExecutor: An executor of that spec does not exist or does not load.
        GuardMissing: The script opens the engine outside of `if __name__ == "__main__":`.

    Example:
        with dq.Engine("movie.db", workers=4) as engine:
            run = engine.start(movie, 240, id="movie-1")
            print(run.result())
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        workers: int | None = None,
        executors: Mapping[str, str] | None = None,
        start_method: str = "fork",
        hang: float = 10.0,
        grace: float = 5.0,
        recycle_steps: int | None = None,
        recycle_rss: int | None = None,
        keep: timedelta | None = None,
        signing_key: bytes | os.PathLike[str] | None = None,
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))
        _check_guard()
        _check_options(workers, start_method, hang, grace)
        _check_recycling(recycle_steps, recycle_rss)
        options = Options(
            workers, executors or {}, start_method, hang, grace,
            recycle_steps=recycle_steps or 0, recycle_rss=recycle_rss or 0,
            keep=kept(keep),
        )  # fmt: skip
        launcher = Launcher(self.path, options)
        launcher.signer = signing.chosen(signing_key)
        self._line = signed.connect(launcher)
        ending.watch(self._line)
        weakref.finalize(self, self._line.leave).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits until everything submitted is on disk, and leaves. Runs that are under way stay in the file.

        A supervisor that this engine has started stops when nobody else uses it: running steps are finished within
        `grace` seconds. Ctrl-C meanwhile has them handed back at once; they run again next time.

        Raises:
            DqError: Something that was submitted may not be on disk.
        """
        self._line.close()

    @overload
    def start(
        self, workflow: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, id: str | None = None, **kwargs: Any
    ) -> Run[T]: ...
    @overload
    def start(self, workflow: Callable[..., R], /, *args: Any, id: str | None = None, **kwargs: Any) -> Run[R]: ...
    def start(self, workflow: Callable[..., Any], /, *args: Any, id: str | None = None, **kwargs: Any) -> Run[Any]:
        """Starts a run, or finds the one of that id. Returns when it is on disk.

        Args:
            workflow: What `dq.workflow` made.
            args: Its arguments.
            id: The same id is the same run: started twice, it runs once. None makes a new id. So a workflow's own
                parameter of that name can be given by position only.
            kwargs: Its keyword arguments.

        Raises:
            BadRunId: The id is not fit; the message says why.
            RunConflict: The id belongs to another workflow or other arguments; the message shows both.
            NotPicklable: The arguments can't travel.
            SupervisorLost: There is no supervisor, and there will be none.
        """
        return starting.finish(self._line, starting.begin(self._line, workflow, args, kwargs, id))

    def get(self, id: str) -> Run[Any]:
        """The run of an id. Raises NoSuchRun, BadRunId."""
        name = ids.checked(id)
        record = find(self._line, name)
        return Run(self._line, record.id, name, record.workflow)

    @overload
    def submit(self, step: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    @overload
    def submit(self, step: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]: ...
    def submit(self, step: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submits a step alone, or any function as one. It is on disk when `flush` or the result says so.

        Waits while megabytes of earlier submissions are not on disk, or half a million steps have no result.

        Raises:
            NotPicklable: The function or its arguments can't travel.
            SupervisorLost: There is no supervisor, and there will be none.

        Example:
            parts = [engine.submit(render, frame) for frame in range(240)]
        """
        line = self._line
        try:
            number = line.table.cache[step]
        except (KeyError, TypeError):
            check_step(step)
            settings = step.settings if isinstance(step, Step) and step.has_term else None
            return line.submit(*line.table.call(step, args, kwargs), settings)
        return line.submit(number, args, kwargs)

    @overload
    def map(self, step: Callable[..., Coroutine[Any, Any, T]], /, *iterables: Iterable[Any]) -> Iterator[T]: ...
    @overload
    def map(self, step: Callable[..., R], /, *iterables: Iterable[Any]) -> Iterator[R]: ...
    def map(self, step: Callable[..., Any], /, *iterables: Iterable[Any]) -> Iterator[Any]:
        """Runs a step for each item (several iterables as with the builtin `map`); results in the order of the items.

        Takes items some thousands ahead of the result that is asked for, so the iterables may be endless. The first
        step that fails raises its exception, and then the steps that nobody has begun are cancelled.

        Example:
            for part in engine.map(render, range(240)):
                ...
        """
        check_step(step)
        return Stream(self._line, step, zip(*iterables, strict=False)).results()

    def list(self, *states: str) -> Iterator[RunInfo]:
        """Runs, the newest first: those in the given states, all where none is given.

        Example:
            for run in engine.list("running", "blocked"):
                print(run.id, run.workflow, run.state)

        Raises:
            ValueError: There is no such state.
        """
        return listing.runs(self._line, [str(RunState(state)) for state in states or tuple(RunState)])

    def signal(self, id: str, name: str, payload: Any = None) -> None:
        """Sends a signal to a run. Returns when it is on disk: whatever happens then, the run gets it, once.

        Args:
            id: The run's id.
            name: What the run waits for with `dq.wait_signal(name)`, now or later.
            payload: What `wait_signal` returns.

        Raises:
            NoSuchRun: There is no such run yet; the message has the command that starts one.
            RunEnded: It has ended.
            NotPicklable: The payload can't travel.
        """
        steering.signal(self._line, id, name, payload)

    def cancel(self, id: str, *, now: bool = False) -> str:
        """Cancels a run. Returns, when that is on disk, what was done, as a sentence.

        `dq.Cancelled` is raised in the workflow (`asyncio.CancelledError` in an async one) where it waits, so that it can
        undo what it has done. Its running steps are killed. A second cancel, or `now`, ends it at once.

        Raises:
            NoSuchRun, RunEnded.
        """
        return steering.cancel(self._line, id, now=now)

    def resume(self, id: str) -> str:
        """Lets a blocked run try again, with the code that is on disk now. Returns what was done, as a sentence.

        Raises:
            NoSuchRun, RunEnded.
        """
        return steering.resume(self._line, id)

    def fork(
        self,
        id: str,
        from_step: int | str | None = None,
        args: Iterable[Any] | None = None,
        new_id: str | None = None,
        *,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Run[Any]:
        """Makes a new run with a copy of another one's record; from a step on everything runs anew.

        What was asked for before that step and has ended is copied with its results, and is not run again. The other run
        stays as it is, in whichever state. Returns when the new one is on disk.

        Args:
            id: The run to copy.
            from_step: A step's id, its name for the first call of it, or "name#2" for the second. None copies nothing:
                the run starts over.
            args: Other arguments for the workflow, together with `kwargs`; None keeps those on record. The new run is
                blocked where they lead to other calls of the copied steps than are on record.
            new_id: Its id; by default the other one's with a number, such as "movie-1~2".
            kwargs: Other keyword arguments.

        Raises:
            NoSuchRun: There is no run of that id.
            BadFork: It has no such step.
            RunConflict: The new id is taken.

        Example:
            engine.fork("movie-1", "stitch", new_id="movie-1-again").result()
        """
        call = (tuple(args or ()), dict(kwargs or {})) if args is not None or kwargs is not None else None
        step = "" if from_step is None else str(from_step)
        return self.get(steering.fork(self._line, id, step, new_id, call))

    def retry(self, id: str) -> Run[Any]:
        """Tries a failed or cancelled run again, in a copy: from the step that has failed, or that the cancel has ended.

        What has completed by then is not run again. The copy's id is the run's own with a number, such as "movie-1~2".

        Raises:
            NoSuchRun: There is no run of that id.
            BadFork: It has not failed, or compensations have undone what it had done; the message says what helps.

        Example:
            engine.retry("movie-1").result()
        """
        return self.get(steering.fork(self._line, id, "", None, None, retry=True))

    def release(self, step: int) -> str:
        """Lets a step begin now that is parked (`on_crash="park"`), or waits for its next attempt or for its time.

        Returns what was done, as a sentence.

        Raises:
            NoSuchStep: There is no step of that id.
            DqError: It has a result already.
        """
        return steering.release(self._line, step)

    def flush(self) -> None:
        """Returns when everything that was submitted before is on disk. Raises SupervisorLost."""
        self._line.flush()

    def census(self) -> Crew:
        """Who is at work: the processes with their pids, and how much there is to do. Raises SupervisorLost."""
        crew = self._line.census()
        return Crew(crew.boot_epoch, [Member(*row) for row in crew.rows], crew.pending, crew.claimed, crew.stale)


def _check_guard() -> None:
    if current.IN_TEMPLATE:
        script = getattr(sys.modules.get("__main__"), "__file__", None) or "the script"
        raise GuardMissing(
            f"dq imports {script} to have its functions at hand in worker processes, and meets an engine that is opened "
            'on the way. Put the part that starts things under `if __name__ == "__main__":`.'
        )


def _check_options(workers: int | None, start_method: str, hang: float, grace: float) -> None:
    if workers is not None and workers < 0:
        raise ValueError(f"workers is {workers}; it must be 0 (only take work down) or more")
    if start_method not in ("fork", "spawn"):
        raise ValueError(f'start_method is {start_method!r}; it must be "fork" or "spawn"')
    if hang <= 0 or grace < 0:
        raise ValueError(f"hang is {hang} and grace {grace}; they are seconds, hang above 0 and grace 0 or more")


def _check_recycling(steps: int | None, rss: int | None) -> None:
    if (steps is not None and steps < 1) or (rss is not None and rss < 1 << 20):
        raise ValueError(
            f"recycle_steps is {steps} and recycle_rss {rss}; they are a number of steps, 1 or more, and a number of bytes, "
            "a megabyte or more"
        )


def check_step(step: Any) -> None:
    """Raises TypeError for a workflow, which is not submitted but started."""
    if isinstance(step, Workflow):
        raise TypeError(f"{step.__name__} is a workflow; engine.start({step.__name__}, ...) starts a run of it")
