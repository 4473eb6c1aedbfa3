"""`dq backup`."""

from __future__ import annotations

import json
import os

import click

from dq.cli.options import db_option, json_option
from dq.cli.sizes import size


@click.command("backup")
@click.argument("dest")
@db_option
@json_option
def command(dest: str, db: str, as_json: bool) -> None:
    r"""Make a consistent copy of the database at DEST, with its side files in DEST.blobs, and verify it.

    Works while a supervisor works on the database, and holds nobody up. The copy is as good as the database itself: with
    `dq up --db DEST` its unfinished runs go on from where they were. Never overwrites anything.

    \b
    Example:
        dq backup /backups/movie-monday.db --db movie.db
    """
    from dq.client.upkeep import backup

    made = backup(db, os.path.abspath(dest))
    if as_json:
        print(json.dumps(made._asdict()))
        return
    aside = (
        f", with {made.files} side files ({size(made.file_bytes)}, {made.linked} of them linked)" if made.files else ""
    )
    print(f"{made.path} holds {size(made.bytes)}{aside}; verified")
