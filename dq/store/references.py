"""Which side files the rows of the file name: nobody may unlink those, and a copy of the file needs them.

What is read here are payloads; whoever asks opens them as far as the name. Reading goes page by page, by primary keys,
and never reads a payload that is too long to be a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

PAGE = 1000  # rows that are looked at in one go
Rows = Callable[..., list[Any]]  # runs a named statement with its values, and fetches all rows


class Table(NamedTuple):
    """How a table that has payloads is walked."""

    last: str  # the statement that tells its last id
    page: str  # the one that tells where a page ends
    names: tuple[str, ...]  # those that find names in a stretch of it


RUNS = Table("last_run", "page_of_runs", ("run_arguments_aside", "run_payloads_aside"))
STEPS = Table("last_step", "page_of_steps", ("step_arguments_aside",))
RESULTS = Table("last_result", "page_of_results", ("results_aside",))
SIGNALS = Table("last_signal", "page_of_signals", ("signals_aside",))
PROGRESS = Table("last_progress", "page_of_progress", ("progress_aside",))
TABLES = (RUNS, STEPS, RESULTS, SIGNALS, PROGRESS)


def pages(rows: Rows, table: Table) -> Iterator[tuple[int, int]]:
    """(after, last) of stretches of PAGE rows: walks a table by its primary key, and holds nothing open.

    What is added meanwhile behind its last row is left out: a walk that went after it might never end.
    """
    after, end = 0, rows(table.last)[0][0] or 0
    while after < end and (last := rows(table.page, after, PAGE)[0][0]) is not None:
        yield after, min(last, end)
        after = last


def payloads_aside(rows: Rows) -> Iterator[list[bytes]]:
    """Payloads that name a side file, in pages; some pages are empty. Commits may come between.

    Whoever copies a payload copies it from a row that is there, so what is added behind the walk names nothing new.
    """
    yield [row[0] for row in rows("schedules_aside")]
    for table in TABLES:
        for after, last in pages(rows, table):
            yield [row[0] for statement in table.names for row in rows(statement, after, last)]
