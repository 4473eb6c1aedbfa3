"""What is asked of a run from outside: signals, cancels, another try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from msgspec import structs

from dq.client import ids
from dq.executor.frames import CancelRun, Done, ForkRun, Release, Resume, Signal
from dq.flow.fingerprint import fingerprint
from dq.model import names

if TYPE_CHECKING:
    from dq.client.connection import Connection


def signal(line: Connection, run: str, name: str, payload: Any) -> None:
    """Sends a signal, and returns when it is on disk. Raises BadName, BadRunId, NoSuchRun, RunEnded, NotPicklable."""
    names.checked("a signal's name", name)
    ids.checked(run)
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


def release(line: Connection, step: int) -> str:
    """Lets a step begin now; returns what was done. Raises NoSuchStep, DqError."""
    return cast(Done, line.ask(lambda ticket: Release(ticket, step))).text


def fork(
    line: Connection, run: str, step: str, name: str | None, call: tuple[tuple[Any, ...], dict[str, Any]] | None,
    *, retry: bool = False,
) -> str:  # fmt: skip
    """Makes a run of another one; returns its id. Raises BadRunId, NoSuchRun, RunConflict, BadFork, NotPicklable."""
    if step:
        names.checked("a step's name", step)
    number = line.next_id()
    chosen = ids.checked(name) if name is not None else ""
    args, mark = b"", b""
    if call is not None:
        args, mark = line.arguments(*call, number), fingerprint(*call)
    told = ForkRun(0, number, ids.checked(run), chosen, step, retry, args, mark)
    return cast(Done, line.ask(lambda ticket: structs.replace(told, ticket=ticket))).text
