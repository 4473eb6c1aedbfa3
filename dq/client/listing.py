"""Lists of runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, cast

from dq.executor.frames import ListRuns, Runs
from dq.model.states import RunState

if TYPE_CHECKING:
    from dq.client.connection import Connection

PAGE = 500
_END = (1 << 63) - 1


class RunInfo(NamedTuple):
    """A run as the file has it at the time of the question.

    Attributes:
        id: The run's id.
        workflow: What the record calls its workflow, such as "flows:movie".
        state: "running", "blocked", "completed", "failed" or "cancelled".
        is_child: Whether another run has called it.
        created_at: With its time zone (UTC).
        ended_at: None where it has not ended.
    """

    id: str
    workflow: str
    state: RunState
    is_child: bool
    created_at: datetime
    ended_at: datetime | None


def runs(line: Connection, states: list[str]) -> Iterator[RunInfo]:
    """Runs in these states, the newest first, however many there are."""
    before = _END
    while True:
        position = before
        page = cast(Runs, line.ask(lambda ticket: ListRuns(ticket, position, states, PAGE)))  # noqa: B023 -- called at once
        for id, name, workflow, state, parent, created_at, ended_at in page.rows:
            yield RunInfo(
                name, workflow, RunState(state), bool(parent), _time(created_at), _time(ended_at) if ended_at else None
            )
            before = id
        if len(page.rows) < PAGE:
            return


def _time(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1_000_000, UTC)
