"""`dq resume`."""

from __future__ import annotations

import json

import click

from dq.cli.options import db_option, json_option
from dq.model.screen import safe


@click.command("resume")
@click.argument("id")
@db_option
@json_option
def command(id: str, db: str, as_json: bool) -> None:
    r"""Let the blocked run ID try again with the code that is on disk now.

    \b
    Example:
        dq resume movie-1 --db movie.db
    """
    from dq.client.engine import Engine

    with Engine(db, workers=0) as engine:
        told = engine.resume(id)
    print(json.dumps({"id": id, "done": told}) if as_json else safe(told))
