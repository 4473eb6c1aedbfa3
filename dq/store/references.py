"""Which side files the rows of the file name: nobody may unlink those, and a copy of the file needs them.

What is read here are payloads; whoever asks opens them as far as the name. Reading goes page by page, by primary keys,
and never reads a payload that is too long to be a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

PAGE = 1000  # rows that are looked at in one go
# How a table is walked, and the statements that find names in a stretch of it: every table that has payloads.
TABLES = {
    "page_of_runs": ("run_arguments_aside", "run_payloads_aside"),
    "page_of_steps": ("step_arguments_aside",),
    "page_of_results": ("results_aside",),
    "page_of_signals": ("signals_aside",),
    "page_of_progress": ("progress_aside",),
}
Rows = Callable[..., list[Any]]  # runs a named statement with its values, and fetches all rows


def pages(rows: Rows, walk: str) -> Iterator[tuple[int, int]]:
    """(after, last) of stretches of PAGE rows: walks a whole table by its primary key, and holds nothing open."""
    after = 0
    while (last := rows(walk, after, PAGE)[0][0]) is not None:
        yield after, last
        after = last


def payloads_aside(rows: Rows) -> Iterator[list[bytes]]:
    """Payloads that name a side file, in pages; some pages are empty. Commits may come between."""
    yield [row[0] for row in rows("schedules_aside")]
    for walk, statements in TABLES.items():
        for after, last in pages(rows, walk):
            yield [row[0] for statement in statements for row in rows(statement, after, last)]
