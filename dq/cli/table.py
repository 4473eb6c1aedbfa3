"""Rows and times as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from dq.model.screen import safe

_WIDEST = 60  # characters of a cell


def render(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with aligned columns; numbers stand at the right.

    >>> print(render(["id", "steps"], [["a", 7], ["bcd", 12]]))
    id   steps
    a        7
    bcd     12
    """
    body = list(rows)
    cells = [list(heads), *([_cell(value) for value in row] for row in body)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    right = [bool(body) and all(isinstance(row[column], int) for row in body) for column in range(len(heads))]
    lines = [
        "  ".join(
            text.rjust(width) if at_right else text.ljust(width)
            for text, width, at_right in zip(line, widths, right, strict=True)
        )
        for line in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: object) -> str:
    text = "" if value is None else safe(" ".join(str(value).split()))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def local(micros: int | None) -> str:
    """Microseconds UTC as the reader's wall clock shows them; "" for None."""
    return "" if micros is None else f"{datetime.fromtimestamp(micros / 1e6, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def iso(micros: int | None) -> str | None:
    """Microseconds UTC for programs: ISO 8601 with all digits.

    >>> iso(1)
    '1970-01-01T00:00:00.000001+00:00'
    """
    if micros is None:
        return None
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000).isoformat()


def span(began: int | None, ended: int | None) -> str:
    """The time between two moments in microseconds, "" where one of them is unknown.

    >>> span(0, 1500), span(0, 90_000_000)
    ('1.5 ms', '1 min 30 s')
    """
    if began is None or ended is None:
        return ""
    seconds = max(0, ended - began) / 1e6
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
