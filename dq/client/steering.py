"""What is asked of a run from outside: signals, cancels, another try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from dq.client import ids
from dq.executor.frames import CancelRun, Done, Resume, Signal

if TYPE_CHECKING:
    from dq.client.connection import Connection


def signal(line: Connection, run: str, name: str, payload: Any) -> None:
    """Sends a signal, and returns when it is on disk. Raises BadRunId, NoSuchRun, RunEnded, NotPicklable."""
    number = line.next_id()
    data = line.codec.dumps(payload, f"g{number}", what="signal")
    line.ask(lambda ticket: Signal(ticket, number, ids.checked(run), name, data))


def cancel(line: Connection, run: str, *, now: bool) -> str:
    """Cancels a run; returns what was done. Raises BadRunId, NoSuchRun, RunEnded."""
    number = line.next_id()
    return cast(Done, line.ask(lambda ticket: CancelRun(ticket, number, ids.checked(run), now))).text


def resume(line: Connection, run: str) -> str:
    """Lets a blocked run try again; returns what was done. Raises BadRunId, NoSuchRun, RunEnded."""
    return cast(Done, line.ask(lambda ticket: Resume(ticket, ids.checked(run)))).text
