"""`dq retry`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from dq.cli.options import db_option, json_option
from dq.model.screen import safe

if TYPE_CHECKING:
    from dq.client.engine import Engine


@click.command("retry")
@click.argument("id")
@db_option
@json_option
def command(id: str, db: str, as_json: bool) -> None:
    r"""Try the failed or cancelled run ID again, in a copy, and print the copy's id.

    What has completed is taken over; what has failed, or was cancelled, runs anew with the code that is on disk now. Where
    nobody works on the database now, it begins at the next start.

    Where ID is the number of a step and no run's id: let that step begin now. It may be parked, or wait for its next
    attempt.

    \b
    Example:
        dq retry movie-1 --db movie.db
        dq retry 17 --db movie.db
    """
    from dq.client.engine import Engine

    with Engine(db, workers=0) as engine:
        if id.isdecimal() and not _is_run(engine, id):
            told = engine.release(int(id))
            print(json.dumps({"step": int(id), "done": told}) if as_json else safe(told))
            return
        run = engine.retry(id)
    print(json.dumps({"id": run.id, "forked_from": id}) if as_json else run.id)


def _is_run(engine: Engine, id: str) -> bool:
    from dq.errors import NoSuchRun

    try:
        engine.get(id)
    except NoSuchRun:
        return False
    return True
