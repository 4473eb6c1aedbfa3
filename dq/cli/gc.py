"""`dq gc`."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from dq.cli import spans
from dq.cli.options import db_option, json_option
from dq.cli.sizes import size

if TYPE_CHECKING:
    from dq.client.upkeep import Deleted


@click.command("gc")
@db_option
@click.option(
    "--older-than", callback=spans.option, metavar="SPAN", help="Delete what ended longer ago: 30d, 12h, 90m, 45s."
)
@click.option("--keep-failed", is_flag=True, help="Leave failed runs, and failed or dead steps, where they are.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--compact", is_flag=True, help="Then give the space back to the system; wants the database for itself.")
@json_option
def command(db: str, older_than: float | None, keep_failed: bool, dry_run: bool, compact: bool, as_json: bool) -> None:
    r"""Delete runs, and steps submitted alone, that ended long ago, and side files that nobody refers to.

    Unfinished work stays, and so does what it needs. Works while a supervisor works on the database, in small
    portions. Space that is freed is used again by what comes; --compact makes the file smaller.

    \b
    Example:
        dq gc --older-than 30d --keep-failed --db movie.db
    """
    from dq.client import upkeep

    if older_than is None and not compact:
        raise click.UsageError("Say what may go: --older-than 30d, for example; or --compact.")
    if compact and dry_run:
        raise click.UsageError("--dry-run only counts, and --compact does something: choose one of them.")
    told: dict[str, object] = {}
    if older_than is not None:
        deleted = _delete(db, older_than, keep_failed=keep_failed, dry_run=dry_run)
        told |= {**deleted._asdict(), "dry_run": dry_run}
        if not as_json:
            print(_sentence(deleted, dry_run=dry_run, young=older_than < 60))
    if compact:
        before, after = upkeep.compact(db)
        told |= {"bytes_before": before, "bytes_after": after}
        if not as_json:
            print(f"the file had {size(before)} and has {size(after)}")
    if as_json:
        print(json.dumps(told))


def _delete(db: str, older_than: float, *, keep_failed: bool, dry_run: bool) -> Deleted:
    from dq.client.engine import Engine
    from dq.store.reader import Reader

    Reader.open(db).close()  # a typing error shall not make a new file
    with Engine(db, workers=0) as engine:
        return engine.gc(timedelta(seconds=older_than), keep_failed=keep_failed, dry_run=dry_run)


def _sentence(deleted: Deleted, *, dry_run: bool, young: bool) -> str:
    what = f"{deleted.runs} runs, {deleted.steps} steps and {deleted.files} side files ({size(deleted.bytes)})"
    if dry_run:
        return f"would delete {what}, and the side files of these runs and steps"
    told = f"deleted {what}"
    if young:
        told += "; what has ended within the last minute stays while the supervisor is new, since clients may come back for it"
    if deleted.held:
        told += "; a backup is being made, so side files stay for the next time"
    return told
