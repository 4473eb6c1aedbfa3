"""Runs by name, as those who want something of one find them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from dq import errors
from dq.model.states import RunState

if TYPE_CHECKING:
    from dq.crew.ledger import Run
    from dq.crew.supervisor import Supervisor


def unfinished(supervisor: Supervisor, name: str, what: str) -> Run:
    """The run of a name, where it has not ended. Changes nothing and commits nothing.

    Args:
        supervisor: Whose run it is.
        name: The run's id, as people have chosen it.
        what: What can't be done where there is none: "signalled".

    Raises:
        NoSuchRun: There is none.
        RunEnded: It has ended.
    """
    run = supervisor.ledger.by_name.get(name)
    if run is not None and run.state in (RunState.RUNNING, RunState.BLOCKED):
        return run
    # What the ledger does not have is in the file as it was long ago, whatever is being collected.
    row = None if run is not None else supervisor.store.find_run(name)
    if run is None and row is None:
        raise errors.NoSuchRun(
            f"there is no run {name!r}, so it can't be {what}. Start it first: "
            f"`dq start FILE:WORKFLOW --id {shlex.quote(name)} --db {shlex.quote(supervisor.options.db)}`."
        )
    state = run.state if run is not None else row.state if row is not None else ""
    raise errors.RunEnded(f"run {name!r} is {state}, so it can't be {what}.")
