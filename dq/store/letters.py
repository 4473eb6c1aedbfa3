"""Dead letters as the file has them: steps that ended `dead`, steps submitted alone that failed, runs that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

LAST_ID = (1 << 63) - 1
PAGE = 20_000  # rows that are looked through in one go
Rows = Callable[..., list[Any]]  # runs a named statement with its values, and fetches all rows


class LetterLine(NamedTuple):
    """One dead letter. Times are microseconds UTC."""

    id: int
    run: str  # its run's name, "" for a step submitted alone
    function: str
    ended: str  # "dead" or "failed"
    state: str  # "open", "retried" or "discarded"
    successor: int | None  # the step or the run that tries again
    attempt: int  # 0 for a run
    pid: int
    created_at: int
    ended_at: int
    payload: bytes  # the failure


def steps(rows: Rows) -> Iterator[list[LetterLine]]:
    """Steps, newest first, in pages; some pages are empty. There is no index, since each step would pay for it."""
    return _walk(rows, "page_of_last_results", "dead_steps")


def runs(rows: Rows) -> Iterator[list[LetterLine]]:
    """Runs, newest first, in pages; some pages are empty."""
    return _walk(rows, "page_of_last_runs", "dead_runs")


def _walk(rows: Rows, walk: str, statement: str) -> Iterator[list[LetterLine]]:
    before = LAST_ID
    while (first := rows(walk, before, PAGE)[0][0]) is not None:
        yield [LetterLine._make(row) for row in rows(statement, first, before)]
        before = first
