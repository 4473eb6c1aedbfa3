"""The engine: what a program holds to start runs and submit steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar, cast

from dq import errors
from dq.client import ids, origin
from dq.client.connection import Connection
from dq.client.launcher import Launcher, Options
from dq.client.run import Run, find
from dq.client.steps import Ordered
from dq.executor import current
from dq.executor.codec import Codec
from dq.executor.frames import Census, Clash, Start
from dq.flow.future import Future
from dq.model.states import CANCELLED, COMPLETED

P = ParamSpec("P")
R = TypeVar("R")

WINDOW = 1 << 14  # steps of a map that are on their way at once
WINDOW_BYTES = 32 << 20  # bytes of results that wait to be taken
SHOWN = 200  # characters of arguments in a message


class Member(NamedTuple):
    """A process of the crew.

    Attributes:
        kind: "supervisor", "template", "worker" or "host".
        slot: Its number in the slots file, -1 if it has none.
        finished: How many steps it has finished.
        id: The step or run that it is at, 0 for none.
        busy: Microseconds that it has been at it.
    """

    kind: str
    pid: int
    slot: int
    finished: int
    id: int
    busy: int


class Crew(NamedTuple):
    """Who is at work on a file, and how much waits."""

    boot_epoch: int
    rows: list[Member]
    pending: int
    claimed: int


class Engine:
    """Durable execution on one file.

    Attaches to the supervisor that works on the file, or starts one as a child and stops it at the end.

    Args:
        path: The database file; made if it is not there. Its folder must be there.
        workers: How many worker processes; None for one a core, 0 to take work down without doing it. Only counts
            where this engine starts the supervisor, as do all that follow.
        executors: Further executors by name, such as {"io": "thread:64"}.
        start_method: "fork" (workers are forked from a template that has imported the code) or "spawn".
        hang: Seconds without a heartbeat and without progress after which a worker is killed.
        grace: Seconds that running steps have to finish when the engine stops.

    Raises:
        GuardMissing: The script starts its engine while dq imports it.
        StoreError: The file can't be used; the subclass and the message say why.

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
        if current.IN_TEMPLATE:
            raise errors.GuardMissing(
                "this script opens an engine while dq imports it to find its steps. Put the part that runs the program "
                'under `if __name__ == "__main__":`.'
            )
        self.path = os.path.abspath(os.fspath(path))
        options = Options(workers, dict(executors or {}), start_method, hang, grace)
        self._line = Connection(Launcher(self.path, options), Codec(f"{self.path}.blobs"), origin.here())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Makes sure that all that was submitted is on disk, and leaves. A supervisor of its own drains and stops."""
        self._line.close()

    def start(self, workflow: Callable[P, R], /, *args: Any, id: str | None = None, **kwargs: Any) -> Run[R]:
        """Starts a run, or finds the one of that id. Returns when it is on disk.

        Args:
            workflow: What `dq.workflow` made.
            id: The run's id: the same id is the same run. None for a new one. A workflow's own parameter named `id`
                has to be given by position.

        Raises:
            RunConflict: The id is taken by another workflow or other arguments; the message shows both.
            BadRunId: It can't be an id; the message names the rule.
            NotPicklable: The arguments can't travel.
        """
        from dq.flow.fingerprint import fingerprint

        name = ids.fresh() if id is None else ids.checked(id)
        if not hasattr(workflow, "__dq_body__"):
            raise TypeError(f"{workflow!r} is not a workflow; decorate it with @dq.workflow, or use engine.submit")
        line = self._line
        number = line.table.number(workflow, "workflow")
        run_id = line.next_id()
        payload = line.arguments(args, kwargs, run_id)
        mark = fingerprint(args, kwargs)
        answer = line.ask(lambda ticket: Start(ticket, run_id, name, number, payload, mark))
        label = _label(workflow)
        if isinstance(answer, Clash):
            raise self._conflict(name, label, (args, kwargs), answer)
        return Run(line, answer.id, name, label)

    def _conflict(self, id: str, label: str, asked: tuple[Any, Any], clash: Clash) -> errors.RunConflict:
        try:
            recorded = _call(clash.workflow, self._line.codec.loads(clash.args))
        except Exception as error:  # noqa: BLE001 -- what can't be read any more is told as such
            recorded = f"{clash.workflow}(arguments that can't be read here: {error})"
        return errors.RunConflict(
            f"the run id {id!r} is taken.\n  recorded: {recorded}\n  asked for: {_call(label, asked)}\n"
            "The same id is the same run; choose another id for another one."
        )

    def get(self, id: str) -> Run[Any]:
        """The run of an id. Raises NoSuchRun."""
        record = find(self._line, ids.checked(id))
        return Run(self._line, record.id, id, record.workflow)

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submits one step alone; any function will do. Raises NotPicklable."""
        number, taken, named = self._line.table.call(function, args, kwargs)
        return cast("Future[R]", self._line.submit(number, taken, named))

    def map(self, function: Callable[..., R], /, *iterables: Iterable[Any]) -> Iterator[R]:
        """Submits a step for each item and yields the results in order.

        Items are drawn as results are taken, some thousands ahead: an endless generator is fine.
        """
        return self._map(self._line.table.number(function), iterables)

    def _map(self, number: int, iterables: tuple[Iterable[Any], ...]) -> Iterator[Any]:
        line, stream = self._line, Ordered()
        waiting: list[int] = []
        items = zip(*iterables, strict=False)
        at, more = 0, True
        try:
            while True:
                while more and len(waiting) - at < WINDOW and stream.arrived - stream.taken < WINDOW_BYTES:
                    item = next(items, None)
                    if item is None:
                        more = False
                    else:
                        waiting.append(line.send(number, item, {}, stream))
                if at == len(waiting):
                    return
                status, payload = stream.take(waiting[at], None)
                at += 1
                if at == WINDOW:
                    del waiting[:at]
                    at = 0
                yield self._value(status, payload)
        finally:
            stream.closed = True
            line.withdraw(waiting[at:])

    def _value(self, status: int, payload: bytes) -> Any:
        if status == COMPLETED:
            return self._line.codec.loads(payload)
        if status == CANCELLED:
            raise errors.Cancelled("the step was cancelled")
        raise self._line.codec.restore(payload)

    def flush(self) -> None:
        """Returns when all that was submitted before is on disk."""
        self._line.flush()

    def census(self) -> Crew:
        """Who is at work on the file now."""
        crew = self._line.ask(Census)
        return Crew(crew.boot_epoch, [Member(*row) for row in crew.rows], crew.pending, crew.claimed)


def _label(function: Any) -> str:
    body = getattr(function, "__dq_body__", function)
    return f"{body.__module__}:{body.__qualname__}"


def _call(name: str, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> str:
    args, kwargs = arguments
    inner = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
    return f"{name}({inner if len(inner) <= SHOWN else inner[:SHOWN] + '...'})"
