"""Spans of time on the command line: 30d, 12h, 90m, 45s."""

from __future__ import annotations

import re

import click

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def seconds(text: str) -> float:
    """The seconds of a span. Raises ValueError.

    >>> seconds("30d"), seconds("1.5h")
    (2592000.0, 5400.0)
    """
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no span of time; write 30d, 12h, 90m, 45s or 2w")
    return float(found[1]) * _SECONDS[found[2]]


def option(_context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """The callback of an option whose value is a span."""
    if value is None:
        return None
    try:
        return seconds(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param=parameter) from error
