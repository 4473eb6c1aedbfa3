"""`dq start`."""

from __future__ import annotations

import json

import click

from dq.cli.options import db_option, json_option, parse_arguments


@click.command("start")
@click.argument("target", metavar="FILE_OR_MODULE:WORKFLOW")
@click.argument("arguments", nargs=-1, metavar="[ARG as JSON]...")
@db_option
@click.option("--id", help="The run's id: the same id is the same run.  [default: a new one]")
@json_option
def command(target: str, arguments: tuple[str, ...], db: str, id: str | None, as_json: bool) -> None:
    r"""Put a run on record and return once it is on disk.

    A supervisor that works on the database begins at once; without one, the run waits for the next `dq up` or engine.

    \b
    Example:
        dq start flows.py:movie 240 --db movie.db --id movie-1
        dq up --db movie.db --until-idle
    """
    from dq.cli.targets import load
    from dq.client.engine import Engine

    args = parse_arguments(arguments)
    workflow = load(target)
    with Engine(db, workers=0) as engine:
        run = engine.start(workflow, *args, id=id)
    print(json.dumps({"id": run.id}) if as_json else run.id)
