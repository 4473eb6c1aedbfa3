"""The engine: what a program holds while it has workflows and steps done."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast, overload

from dq.client import ending, ids, listing, origin, steering
from dq.client.census import Crew, Member
from dq.client.connection import Connection
from dq.client.launcher import Launcher, Options
from dq.client.run import Run, find
from dq.client.stream import Stream
from dq.errors import GuardMissing, RunConflict
from dq.executor import current
from dq.executor.codec import Codec
from dq.executor.frames import Clash, Start, Started
from dq.flow.decorators import Step, Workflow
from dq.flow.fingerprint import fingerprint
from dq.model.states import RunState

if TYPE_CHECKING:
    from types import TracebackType

    from dq.client.listing import RunInfo
    from dq.flow.future import Future

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_SHOWN = 400  # characters of arguments in a message


class Engine:
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

    Raises:
        StoreError: The file can't be used; the subclass and the message say why.
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
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))
        _check_guard()
        _check_options(workers, start_method, hang, grace)
        options = Options(workers, executors or {}, start_method, hang, grace)
        self._line = Connection(Launcher(self.path, options), Codec(self.path + ".blobs"), origin.here())
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
        if isinstance(workflow, Step):
            raise TypeError(f"{workflow.__name__} is a step; engine.submit({workflow.__name__}, ...) submits it alone")
        if not isinstance(workflow, Workflow):
            raise TypeError(f"{workflow!r} is not a workflow; decorate it with @dq.workflow, or use engine.submit")
        name = ids.fresh() if id is None else ids.checked(id)
        line = self._line
        function = line.table.number(workflow, "workflow")
        number = line.next_id()
        payload = line.arguments(args, kwargs, number)
        mark = fingerprint(args, kwargs)
        answer = line.ask(lambda ticket: Start(ticket, number, name, function, payload, mark))
        label = line.table.name(function)
        if isinstance(answer, Clash):
            raise RunConflict(self._show_clash(name, label, args, kwargs, answer))
        return Run(line, cast(Started, answer).id, name, label)

    def _show_clash(self, name: str, label: str, args: tuple[Any, ...], kwargs: dict[str, Any], clash: Clash) -> str:
        try:
            recorded = _show(*self._line.codec.loads(clash.args))
        except Exception as error:  # noqa: BLE001 -- what can't be read any more is told as such
            recorded = f"(arguments that can't be read here: {type(error).__name__}: {error})"
        return (
            f"run id {name!r} is taken. On record: {clash.workflow}{recorded}. "
            f"Asked for: {label}{_show(args, kwargs)}. Use another id, or call it with the same arguments."
        )

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

    def flush(self) -> None:
        """Returns when everything that was submitted before is on disk. Raises SupervisorLost."""
        self._line.flush()

    def census(self) -> Crew:
        """Who is at work: the processes with their pids, and how much there is to do. Raises SupervisorLost."""
        crew = self._line.census()
        return Crew(crew.boot_epoch, [Member(*row) for row in crew.rows], crew.pending, crew.claimed)


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


def check_step(step: Any) -> None:
    """Raises TypeError for a workflow, which is not submitted but started."""
    if isinstance(step, Workflow):
        raise TypeError(f"{step.__name__} is a workflow; engine.start({step.__name__}, ...) starts a run of it")


def _show(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    try:
        text = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
    except Exception as error:  # noqa: BLE001 -- a user's repr may raise anything
        text = f"... their repr raises {type(error).__name__}"
    return f"({text if len(text) <= _SHOWN else text[:_SHOWN] + ' ...'})"
