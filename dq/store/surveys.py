"""What is looked for in the whole file, and by people: dead letters, side files, what is stuck."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dq.store import letters, references
from dq.store.letters import LetterLine
from dq.store.reads import Reads


class StepRecord(NamedTuple):
    """A step and how it ended."""

    run: int | None
    function: int
    args: bytes
    state: str  # "" while it has no result
    run_name: str  # "" for a step submitted alone


class Surveys(Reads):
    """More that can be read; commits may come between the pages."""

    def letters(self) -> Iterator[list[LetterLine]]:
        """All dead letters, in pages: steps, newest first, then runs. Some pages are empty."""
        yield from letters.steps(self._rows)
        yield from letters.runs(self._rows)

    def letter(self, id: int) -> tuple[str, int | None] | None:
        """(state, successor) of a step or run that ended badly and that somebody has dealt with."""
        return next(((row[0], row[1]) for row in self._rows("letter", id)), None)

    def step_record(self, id: int) -> StepRecord | None:
        return next((StepRecord._make(row) for row in self._rows("step_record", id)), None)

    def payloads_aside(self) -> Iterator[list[bytes]]:
        """Payloads that name a side file, in pages; some pages are empty."""
        return references.payloads_aside(self._rows)

    def quiet_runs(self, before: int) -> list[tuple[str, int]]:
        """(name, time) of runs that go on, have no open step, and were heard of last before that time."""
        return self._rows("quiet_runs", before)

    def blocked_runs(self) -> list[tuple[str, str]]:
        """(name, reason)."""
        return self._rows("blocked_runs")

    def unfinished_workflows(self) -> list[tuple[int, int]]:
        """(function, how many unfinished runs it has)."""
        return self._rows("unfinished_workflows")

    def parked_steps(self, due_at: int) -> list[tuple[int, str]]:
        """(step, function) of open steps that are due at that time or later."""
        return self._rows("parked_steps", due_at)

    def claim_times(self) -> dict[int, int]:
        """When each open claim was made, by epoch."""
        return dict(self._rows("claim_times"))

    def latest_end(self, steps: int = 1000) -> int:
        """When the last one of the newest steps ended, 0 where none has."""
        return int(self._rows("latest_end", letters.LAST_ID, steps)[0][0])

    def latest_begin(self, rows: int = 1000) -> int:
        """When the last one of the newest steps and runs was asked for, 0 where there are none."""
        return int(self._rows("latest_begin", letters.LAST_ID, rows)[0][0])

    def distant_steps(self, since: int, until: int) -> tuple[int, int, int]:
        """Open steps that are due within that time: how many, the latest time, and one of them; zeros for none."""
        count, due, step = self._rows("distant_terms", since, until)[0]
        return count, due or 0, step or 0
