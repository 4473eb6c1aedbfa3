"""`dq check`."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from dq.cli import exits
from dq.cli.options import db_option, json_option
from dq.model.screen import safe

if TYPE_CHECKING:
    from dq.client.recording import Recording
    from dq.flow.stage import Told


def _places(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = [value.partition("=") for value in values]
    if not all(old and sign and new for old, sign, new in pairs):
        raise click.BadParameter("it wants OLD=NEW, such as /srv/app=/build/app.")
    return [(os.path.abspath(old), os.path.abspath(new)) for old, _, new in pairs]


@click.command("check")
@click.argument("targets", nargs=-1, metavar="[FILE_OR_MODULE[:WORKFLOW]]...")
@db_option
@click.option(
    "--place",
    "places",
    multiple=True,
    metavar="OLD=NEW",
    callback=_places,
    help="What was recorded below the folder OLD is looked for below NEW. May be repeated.",
)
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds that one run may take."
)
@json_option
def command(targets: tuple[str, ...], db: str, places: list[tuple[str, str]], timeout: float, as_json: bool) -> int:
    r"""Say which unfinished runs would not go on with the code that is on disk now.

    Each is replayed from its record, in a process of its own: no step is started, nothing is written, and no supervisor
    is needed. Code between steps runs, as it does on every replay. Without a target it checks all unfinished runs. The
    exit code is 4 where one of them would break.

    \b
    Example:
        dq check flows.py --db movie.db
        dq check --db copy-of-production.db --place /srv/app=/build/app
    """
    from dq.client.recording import Shelf
    from dq.client.rehearsal import rehearse
    from dq.store.reader import Reader

    with Reader.open(db) as reader:
        shelf = Shelf(reader, places)
        runs = _meant(targets, shelf.unfinished())
        found: list[tuple[Recording, Told]] = []
        for recording, told in rehearse(shelf, runs, db, timeout):
            found.append((recording, told))
            if not as_json:
                _show(recording, told)
    broken = sum(told.breaks for _, told in found)
    if as_json:
        print(json.dumps([_as_dict(recording, told) for recording, told in found], indent=1))
    elif found:
        print(f"{len(found) - broken} unfinished runs would go on, {broken} would not")
    else:
        print("no unfinished run" + (" of these" if targets else ""))
    return exits.BLOCKED if broken else exits.OK


def _meant(targets: tuple[str, ...], runs: list[Recording]) -> list[Recording]:
    """The runs of these targets, all where there are none. A file that is not there is an error, if no run knows it."""
    from dq.client.matching import is_file, is_meant, split

    if not targets:
        return runs
    chosen = [run for run in runs if any(is_meant(target, run) for target in targets)]
    for target in targets:
        place, _ = split(target)
        if is_file(place) and not os.path.isfile(place) and not any(is_meant(target, run) for run in chosen):
            raise click.UsageError(f"There is no file {place}, and no unfinished run has its code from there.")
    return chosen


def _show(recording: Recording, told: Told) -> None:
    """A run that breaks with its reason, one that goes on with what should be known."""
    head = safe(f"{recording.name}  ({recording.define.name})")
    if told.breaks:
        print(f"BREAKS  {head}: {safe(_outcome(told))}")
        print(textwrap.indent(safe(told.reason), "    "))
    else:
        blocked = "; it is blocked now, and `dq resume` lets it go on" if recording.state == "blocked" else ""
        print(f"ok      {head}: {safe(_outcome(told))}{blocked}")
    for note in told.notes:
        print(f"    note: {safe(note)}")
    sys.stdout.flush()


def _outcome(told: Told) -> str:
    if told.outcome == "waiting":
        more = len(told.waits_for) - 1
        first = told.waits_for[0] if told.waits_for else "nothing"
        return f"waits for {first}" + (f" and {more} more" if more > 0 else "")
    names = {"broken": "no code", "overdue": "loops", "lost": "its process ends", "failed": "raises"}
    return names.get(told.outcome, told.outcome)


def _as_dict(recording: Recording, told: Told) -> dict[str, object]:
    return {
        "id": recording.name,
        "workflow": recording.define.name,
        "state": recording.state,
        "breaks": told.breaks,
        "outcome": told.outcome,
        "reason": told.reason,
        "waits_for": told.waits_for,
        "asked": told.asked,
        "notes": told.notes,
    }
