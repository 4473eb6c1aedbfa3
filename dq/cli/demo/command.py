"""`dq demo`."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from dq.cli import exits
from dq.cli.demo import plan
from dq.cli.options import json_option, optional_db_option, workers_option
from dq.errors import DqError

if TYPE_CHECKING:
    from dq.cli.demo.stage import Outcome, Play

_KILLS = 12
_FILES_A_KILL = 40  # with fewer files the default number of kills goes down


@click.command("demo")
@click.argument("folder", required=False, metavar="[DIR]", type=click.Path(exists=True, file_okay=False))
@click.option("--kills", type=click.IntRange(0), help=f"How many kills.  [default: {_KILLS}, fewer for few files]")
@workers_option
@click.option("--seed", type=int, help="Draws what is killed and when.  [default: by chance]")
@click.option("--no-chaos", is_flag=True, help="Kill nothing.")
@optional_db_option
@click.option("--keep", is_flag=True, help="Keep the temporary folder with database, log and report.")
@json_option
def command(
    folder: str | None,
    kills: int | None,
    workers: int | None,
    seed: int | None,
    no_chaos: bool,
    db: str | None,
    keep: bool,
    as_json: bool,
) -> int:
    """Measure all .py files of DIR (default: the standard library) while every kind of process is killed.

    One workflow lists the files, measures each in a step of its own (tokenize, parse, compress, hash), merges the
    measures and writes a report. Meanwhile workers, the host, the template and the supervisor are killed with SIGKILL.
    At the end a judge that knows SQLite alone holds the file against a log that all bodies wrote, and a plain process
    without dq computes the same.
    """
    from dq.cli.demo.measure import list_sources
    from dq.cli.demo.stage import Play
    from dq.cli.targets import be_nobody

    be_nobody()
    folder = os.path.abspath(folder or sysconfig.get_path("stdlib"))
    files = list_sources(folder)
    if not files:
        raise click.UsageError(f"There are no .py files in {folder}.")
    seed = random.SystemRandom().randrange(1 << 31) if seed is None else seed
    strikes = _draw(0 if no_chaos else kills, len(files), seed)
    place = "" if db else tempfile.mkdtemp(prefix="dq-demo-")
    play = Play(folder, files, db or os.path.join(place, "demo.db"), workers or os.cpu_count() or 1, strikes, seed)
    kept = bool(db or keep)
    try:
        outcome = _perform(play, as_json=as_json)
        kept = bool(kept or outcome.faults)
    except DqError:
        kept = True
        if place:
            print(f"dq: what there is to see of it is kept in {place}", file=sys.stderr)
        raise
    finally:
        if not kept:
            shutil.rmtree(place, ignore_errors=True)
    print(json.dumps(_as_json(outcome)) if as_json else _as_text(outcome, play, kept=kept))
    return exits.FAILED if outcome.faults else exits.OK


def _draw(kills: int | None, files: int, seed: int) -> list[plan.Strike]:
    if kills is None:
        kills = max(plan.LEAST, min(_KILLS, files // _FILES_A_KILL))
    try:
        return plan.draw(kills, seed)
    except ValueError as error:
        raise click.UsageError(f"--kills {kills}: {error}. Use {plan.LEAST} or more, or --no-chaos.") from error


def _perform(play: Play, *, as_json: bool) -> Outcome:
    from dq.cli.demo.stage import perform
    from dq.cli.progress import open_meter

    with open_meter(sys.stderr if as_json else sys.stdout, "demo", quiet=as_json) as meter:
        meter.say(
            f"{len(play.files)} files of {play.folder}, {play.workers} workers, "
            f"{len(play.plan)} kills to come (seed {play.seed})"
        )
        return perform(play, meter)


def _as_json(outcome: Outcome) -> dict[str, object]:
    return asdict(outcome)


def _as_text(outcome: Outcome, play: Play, *, kept: bool) -> str:
    kills = ", ".join(f"{number} {kind}" for kind, number in outcome.kills.items())
    lines = [
        f"{outcome.files} files, {outcome.steps} steps in {outcome.seconds:.1f} s with {play.workers} workers",
        f"killed     {sum(outcome.kills.values())} ({kills}); {outcome.in_body} workers in the middle of a body",
        f"retried    {outcome.retried}   bodies that a kill cut off before their result was on record",
        f"lost       {outcome.lost}   results that somebody was told of and the file does not hold",
        f"repeated   {outcome.repeated}   bodies that began after the recorded completion of their step",
        f"identical  {'yes' if outcome.identical else 'NO'}   against a plain computation without dq",
        *(f"FAULT: {fault}" for fault in outcome.faults),
    ]
    if kept:
        lines += [f"report     {play.stem}.md and .json", f"look at    dq show {play.run} --db {play.db}"]
    return "\n".join(lines)
