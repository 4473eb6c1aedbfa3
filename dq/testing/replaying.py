"""Replays of recorded runs, for tests of workflows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dq.executor import functions

if TYPE_CHECKING:
    from dq.flow.verdict import Verdict


def replay(db: str | os.PathLike[str], id: str, workflow: Callable[..., Any] | None = None) -> Verdict:
    """Runs a recorded run again in this process, from its record alone, and says what it came to.

    No step runs and nothing is written. The run may have ended or not. Where the order of sets of strings matters to the
    workflow, start the tests with PYTHONHASHSEED=0, as dq's own hosts are.

    Args:
        db: The database file.
        id: The run's id.
        workflow: The workflow to run; None takes the recorded one, imported as it is on disk now.

    Raises:
        NoSuchRun: There is no run of that id.
        StoreError: The file can't be read.

    Example:
        def test_old_runs_still_fit() -> None:
            verdict = dq.testing.replay("tests/records/movies.db", "movie-1")
            assert verdict.same, verdict.reason
    """
    from dq.client.replaying import Tape, visiting

    tape = Tape.read(db, id)
    if workflow is not None:
        body = functions.body_of(workflow)
        return tape.play(lambda: body)
    with visiting(tape.recording):
        return tape.play(tape.resolve)
