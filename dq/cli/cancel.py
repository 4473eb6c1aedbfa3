"""`dq cancel`."""

from __future__ import annotations

import json

import click

from dq.cli.options import db_option, json_option
from dq.model.screen import safe


@click.command("cancel")
@click.argument("id")
@click.option("--now", is_flag=True, help="End it at once, without another word of its code: no compensation runs.")
@db_option
@json_option
def command(id: str, now: bool, db: str, as_json: bool) -> None:
    r"""Cancel the run ID.

    Its running steps are killed and dq.Cancelled is raised in its workflow, which may undo what it has done. A second
    cancel ends it at once. Where nobody works on the database now, the run hears of it at the next start.

    \b
    Example:
        dq cancel movie-1 --db movie.db
    """
    from dq.client.engine import Engine

    with Engine(db, workers=0) as engine:
        told = engine.cancel(id, now=now)
    print(json.dumps({"id": id, "done": told}) if as_json else safe(told))
