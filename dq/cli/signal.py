"""`dq signal`."""

from __future__ import annotations

import json

import click

from dq.cli.options import db_option, json_option, parse_arguments


@click.command("signal")
@click.argument("id")
@click.argument("name")
@click.argument("payload", required=False, metavar="[PAYLOAD as JSON]")
@db_option
@json_option
def command(id: str, name: str, payload: str | None, db: str, as_json: bool) -> None:
    r"""Send the signal NAME to the run ID, and return once it is on disk.

    It reaches the run whatever happens, once, also where nobody works on the database now: then at the next start.

    \b
    Example:
        dq signal movie-1 approve '{"by": "Ada"}' --db movie.db
    """
    from dq.client.engine import Engine

    value = parse_arguments((payload,))[0] if payload is not None else None
    with Engine(db, workers=0) as engine:
        engine.signal(id, name, value)
    print(json.dumps({"id": id, "signal": name}) if as_json else f"run {id} has the signal {name}")
