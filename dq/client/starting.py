"""The start of runs: one, or many with as many questions under way at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dq.client import ids
from dq.client.ask import Ask
from dq.client.run import Run
from dq.errors import RunConflict
from dq.executor.frames import Clash, Start, Started
from dq.flow.decorators import Step, Workflow
from dq.flow.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dq.client.connection import Connection

WINDOW = 1024  # starts that are not known to be on disk
WINDOW_BYTES = 4 << 20  # the same in arguments
_SHOWN = 400  # characters of arguments in a message

Args = tuple[Any, ...]


class Asked(NamedTuple):
    """A start that is under way."""

    ask: Ask
    name: str
    label: str  # what the record calls the workflow
    args: Args
    kwargs: dict[str, Any]

    @property
    def size(self) -> int:
        return len(cast(Start, self.ask.message).args)


def begin(line: Connection, workflow: Any, args: Args, kwargs: dict[str, Any], id: str | None) -> Asked:
    """Asks for a run and does not wait. Raises BadRunId, NotPicklable, TypeError."""
    if isinstance(workflow, Step):
        raise TypeError(f"{workflow.__name__} is a step; engine.submit({workflow.__name__}, ...) submits it alone")
    if not isinstance(workflow, Workflow):
        raise TypeError(f"{workflow!r} is not a workflow; decorate it with @dq.workflow, or use engine.submit")
    name = ids.fresh() if id is None else ids.checked(id)
    function = line.table.number(workflow, "workflow")
    number = line.next_id()
    payload = line.arguments(args, kwargs, number)
    mark = fingerprint(args, kwargs)
    ask = line.begin(lambda ticket: Start(ticket, number, name, function, payload, mark))
    return Asked(ask, name, line.table.name(function), args, kwargs)


def finish(line: Connection, asked: Asked) -> Run[Any]:
    """The run, once it is on disk. Raises RunConflict, SupervisorLost."""
    answer = line.answer(asked.ask)
    if isinstance(answer, Clash):
        raise RunConflict(_show_clash(line, asked, answer))
    return Run(line, cast(Started, answer).id, asked.name, asked.label)


class Starting:
    """The part of an engine that starts many runs."""

    _line: Connection

    def start_many(
        self, workflow: Callable[..., Any], calls: Iterable[Any], /, *, id: Callable[..., str] | None = None
    ) -> list[Run[Any]]:
        """Starts a run for each call, thousands a second, and returns them in order when all are on disk.

        A call that fails ends the whole: those before it are started, and a second try finds them where `id` names them.

        Args:
            workflow: What `dq.workflow` made.
            calls: The arguments of each run: a tuple of them, or just the one that is no tuple. May be a generator.
            id: Called with the arguments of each run; returns its id. None makes new ids.

        Raises:
            BadRunId, RunConflict, NotPicklable, SupervisorLost: as `start`.

        Example:
            runs = engine.start_many(invoice, customers, id=lambda customer: f"invoice-{customer}-2026-11")
            totals = [run.result() for run in runs]
        """
        line, runs = self._line, list[Run[Any]]()
        waiting: deque[Asked] = deque()
        size = 0
        for call in calls:
            args = call if isinstance(call, tuple) else (call,)
            asked = begin(line, workflow, args, {}, None if id is None else id(*args))
            waiting.append(asked)
            size += asked.size
            while len(waiting) >= WINDOW or size > WINDOW_BYTES:
                size -= waiting[0].size
                runs.append(finish(line, waiting.popleft()))
        runs += [finish(line, asked) for asked in waiting]
        return runs


def _show_clash(line: Connection, asked: Asked, clash: Clash) -> str:
    try:
        recorded = _show(*line.codec.load_call(clash.args))
    except Exception as error:  # noqa: BLE001 -- what can't be read any more is told as such
        recorded = f"(arguments that can't be read here: {type(error).__name__}: {error})"
    return (
        f"run id {asked.name!r} is taken. On record: {clash.workflow}{recorded}. "
        f"Asked for: {asked.label}{_show(asked.args, asked.kwargs)}. Use another id, or call it with the same arguments."
    )


def _show(args: Args, kwargs: dict[str, Any]) -> str:
    try:
        text = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
    except Exception as error:  # noqa: BLE001 -- a user's repr may raise anything
        text = f"... their repr raises {type(error).__name__}"
    return f"({text if len(text) <= _SHOWN else text[:_SHOWN] + ' ...'})"
