"""`dq fork`."""

from __future__ import annotations

import json
from typing import Any

import click

from dq.cli.options import db_option, json_option, parse_arguments


@click.command("fork")
@click.argument("id")
@click.option("--from", "step", metavar="STEP", help="A step's number, its name, or NAME#2 for its second call.")
@click.option("--set", "arguments", metavar="JSON", help='Other arguments: [1, 2] or {"name": 1}.')
@click.option(
    "--id", "new", metavar="NEW", help="The new run's id.  [default: the id with a number, such as movie-1~2]"
)
@db_option
@json_option
def command(id: str, step: str | None, arguments: str | None, new: str | None, db: str, as_json: bool) -> None:
    r"""Make a new run of the run ID: what it has done before STEP is taken over, the rest runs anew.

    The run ID stays as it is. Without --from nothing is taken over, and the new run starts over. Where nobody works on
    the database now, it begins at the next start. Prints the new id.

    \b
    Example:
        dq fork movie-1 --from stitch --db movie.db
        dq fork movie-1 --from "render#3" --set '[480]' --id movie-large --db movie.db
    """
    from dq.client.engine import Engine

    call: dict[str, Any] = {}
    if arguments is not None:
        call = _call(arguments)
    with Engine(db, workers=0) as engine:
        run = engine.fork(id, step, new_id=new, **call)
    print(json.dumps({"id": run.id, "forked_from": id}) if as_json else run.id)


def _call(text: str) -> dict[str, Any]:
    value = parse_arguments((text,))[0]
    if isinstance(value, list):
        return {"args": value}
    if isinstance(value, dict):
        return {"kwargs": value}
    raise click.UsageError(f"--set wants all arguments, as a list or by name: [{text}], not {text}.")
