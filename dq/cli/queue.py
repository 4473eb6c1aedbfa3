"""`dq queue`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from dq.cli.options import db_option, json_option
from dq.model.screen import safe

if TYPE_CHECKING:
    from dq.client.queues import QueueHandle


@click.group("queue")
def command() -> None:
    r"""Change a queue while it is at work.

    What is set here holds over restarts, and goes before the limits in the code. It works as well while nobody works on the
    database: then it holds from the next start on.

    \b
    Example:
        dq queue pause api --db movie.db
        dq queue limit api --concurrency 2 --rate 100/60 --db movie.db
    """


@command.command("pause")
@click.argument("name")
@db_option
@json_option
def pause(name: str, db: str, as_json: bool) -> None:
    """Let no step of the queue NAME begin any more; what runs goes on."""
    _change(name, db, as_json, lambda queue: queue.pause())


@command.command("resume")
@click.argument("name")
@db_option
@json_option
def resume(name: str, db: str, as_json: bool) -> None:
    """Let the steps of the queue NAME begin again."""
    _change(name, db, as_json, lambda queue: queue.resume())


@command.command("limit")
@click.argument("name")
@click.option("--concurrency", metavar="N", help="How many of its steps may run at once, or none.")
@click.option("--per-worker", metavar="N", help="How many of them one worker may hold at once, or none.")
@click.option("--rate", metavar="N/SECONDS", help="No more than N begin within so many seconds, or none.")
@click.option("--default", is_flag=True, help="Back to the limits that the code says.")
@db_option
@json_option
def limit(
    name: str, concurrency: str | None, per_worker: str | None, rate: str | None, default: bool, db: str, as_json: bool
) -> None:
    """Set limits of the queue NAME; those that are not named stay as they are."""
    limits: dict[str, object] = {}
    for word, text in (("concurrency", concurrency), ("per_worker", per_worker)):
        if text is not None:
            limits[word] = _number(word, text)
    if rate is not None:
        limits["rate"] = _rate(rate)
    if default == bool(limits):
        raise click.UsageError("Say which limits to set, or --default, and not both.")
    _change(name, db, as_json, lambda queue: queue.limit(default=default, **limits))  # type: ignore[arg-type]


def _change(name: str, db: str, as_json: bool, change: Callable[[QueueHandle], str]) -> None:
    from dq.client.engine import Engine

    try:
        with Engine(db, workers=0) as engine:
            told = change(engine.queue(name))
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error
    print(json.dumps({"queue": name, "done": told}) if as_json else safe(told))


def _number(word: str, text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.UsageError(f"--{word.replace('_', '-')} wants a number of steps, 1 or more, or none; not {text!r}.")
    return int(text)


def _rate(text: str) -> tuple[int, float] | None:
    if text == "none":
        return None
    count, _, period = text.partition("/")
    try:
        return int(count), float(period)
    except ValueError:
        raise click.UsageError(f"--rate wants N/SECONDS such as 100/60, or none; not {text!r}.") from None
