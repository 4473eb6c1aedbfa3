"""Options that several commands share."""

from __future__ import annotations

import json
import os
from typing import Any

import click

DB = "dq.cli.db"  # the key in click's shared `meta` under which an error finds the database as the user named it


def _absolute(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    context.meta[DB] = value
    return os.path.abspath(value)


db_option = click.option(
    "--db",
    default="dq.db",
    envvar="DQ_DB",
    show_default=True,
    show_envvar=True,
    metavar="FILE",
    callback=_absolute,
    help="The database file.",
)
optional_db_option = click.option(
    "--db",
    default=None,
    metavar="FILE",
    callback=_absolute,
    help="The database file, kept afterwards.  [default: a temporary one]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
workers_option = click.option(
    "--workers", type=click.IntRange(0, 500), default=None, help="Worker processes.  [default: one for each core]"
)
executor_option = click.option(
    "--executor",
    "executors",
    multiple=True,
    metavar="NAME=SPEC",
    help="A further executor by name, such as io=thread:64. May be repeated.",
)


def parse_executors(values: tuple[str, ...]) -> dict[str, str]:
    """The `--executor` options as a dict. Raises UsageError."""
    pairs = [value.partition("=") for value in values]
    for name, sign, spec in pairs:
        if not (name and sign and spec):
            raise click.UsageError(f"--executor wants NAME=SPEC such as io=thread:64, not {name + sign + spec!r}.")
    return {name: spec for name, _, spec in pairs}


def parse_arguments(texts: tuple[str, ...]) -> list[Any]:
    """Command line arguments as JSON values. Raises UsageError that names the argument."""
    values: list[Any] = []
    for number, text in enumerate(texts, 1):
        try:
            values.append(json.loads(text))
        except ValueError as error:
            raise click.UsageError(
                f"Argument {number} is not JSON: {text!r} ({error}). A text needs quotes inside quotes: '\"text\"'."
            ) from error
    return values
