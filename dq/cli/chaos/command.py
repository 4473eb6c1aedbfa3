"""`dq chaos`."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dq.cli import exits
from dq.cli.chaos import plan
from dq.cli.options import json_option, optional_db_option, workers_option
from dq.errors import DqError

if TYPE_CHECKING:
    from dq.cli.chaos.clients import Play, Tally

_SECONDS = 30.0
_RATE = 2.0
_AT_ONCE = 4  # runs for each worker
_FINDINGS = ("lost", "unfinished", "repeated", "overlaps", "orphans", "wrong")


def _kinds(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    kinds = tuple(word.strip() for word in value.split(",") if word.strip())
    unknown = [kind for kind in kinds if kind not in plan.KINDS]
    if unknown or not kinds:
        raise click.BadParameter(f"{unknown[0] if unknown else value!r} is none of {', '.join(plan.KINDS)}")
    return kinds


def _arguments(_context: click.Context, _parameter: click.Parameter, value: str) -> list[Any]:
    try:
        found = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not JSON ({error})") from error
    if not isinstance(found, list):
        raise click.BadParameter(f"{value!r} is not a list; one argument 240 is written '[240]'")
    return found


@click.command("chaos")
@click.argument("target", required=False, metavar="[FILE_OR_MODULE:WORKFLOW]")
@click.option(
    "--args", "args", default="[]", callback=_arguments, metavar="JSON", help="The workflow's arguments: '[240]'."
)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="How long there are faults.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), help=f"The same in seconds.  [default: {_SECONDS:g}]"
)
@click.option(
    "--rate", type=click.FloatRange(0, 50, min_open=True), default=_RATE, show_default=True, help="Faults a second."
)
@click.option("--kinds", default=",".join(plan.KINDS), callback=_kinds, show_default=True, help="Which faults.")
@click.option("--seed", type=int, help="Draws the faults and the programs.  [default: by chance]")
@workers_option
@optional_db_option
@json_option
def command(
    target: str | None,
    args: list[Any],
    minutes: float | None,
    seconds: float | None,
    rate: float,
    kinds: tuple[str, ...],
    seed: int | None,
    workers: int | None,
    db: str | None,
    as_json: bool,
) -> int:
    r"""Run a workflow again and again while its processes are killed and stopped, and judge what came of it.

    Workers, hosts, templates and the supervisor are killed with SIGKILL, one or all at once, and any of them is stopped and
    continued, now and then for so long that it is held to be hung. Then the runs go on to their end, the engine stops, and a judge that knows
    SQLite alone holds the file against the history of what everybody was told. The exit code is 1 where it finds anything.

    Without a workflow random ones are made, of everything that dq has, whose results are known by arithmetic. Their bodies
    write the history themselves, so every promise is checked.

    Of a workflow of yours are checked: all runs end, and with the result of a first run in which nobody is killed (so it
    must not depend on time or chance); what was acknowledged is in the file; no call has two steps, no step an
    attempt after its completion. Whether a body runs twice at once, or again after its end, is seen
    in shared memory, fifty times a second: shorter bodies may escape that. What your steps do to the outside world is
    not looked at. No step and no run is hit more than once where it could be charged for it, so that nothing is quarantined.

    The same --seed draws the same programs and the same faults at the same times; whom they meet depends on the machine.

    \b
    Example:
        dq chaos flows.py:movie --args '[240]' --minutes 5
    """
    from dq.cli.chaos.clients import Play

    if minutes is not None and seconds is not None:
        raise click.UsageError("--minutes and --seconds are the same thing; give one of them.")
    if args and target is None:
        raise click.UsageError("--args belongs to a workflow, and none is named.")
    seed = random.SystemRandom().randrange(1 << 31) if seed is None else seed
    workflow = _workflow(target)
    place = "" if db else tempfile.mkdtemp(prefix="dq-chaos-")
    database = db or os.path.join(place, "chaos.db")
    count = workers or os.cpu_count() or 1
    span = minutes * 60 if minutes is not None else seconds or _SECONDS
    log = os.path.abspath(time.strftime(f"{Path(database).stem}-%Y%m%d-%H%M%S-{os.getpid()}.history"))
    if db:
        log = os.path.join(os.path.dirname(database), os.path.basename(log))
    play = Play(workflow, args, database, log, seed, span, rate, kinds, count, _AT_ONCE * count)
    told = _perform(play, target or "random programs", as_json=as_json)
    bad = any(told[kind] for kind in _FINDINGS) or bool(told["problems"])
    kept = bool(db or bad)
    if not kept:
        shutil.rmtree(place, ignore_errors=True)
    print(json.dumps(told) if as_json else _as_text(told, database if kept else ""))
    return exits.FAILED if bad else exits.OK


def _workflow(target: str | None) -> Any:
    from dq.cli.targets import be_nobody, load

    if target is not None:
        return load(target)
    be_nobody()
    return None


def _perform(play: Play, what: str, *, as_json: bool) -> dict[str, Any]:
    """Performs it and returns the verdict. What there is to see is kept where it ends in an error."""
    from dq.cli.chaos.display import open_display
    from dq.cli.chaos.stage import perform

    began = time.monotonic()
    try:
        with open_display(sys.stderr if as_json else sys.stdout, quiet=as_json) as display:
            display.say(
                f"{what}, {play.workers} workers, {play.seconds:g} s with {play.rate:g} faults a second (seed {play.seed})"
            )
            tally = perform(play, display.show)
            display.say("the engine has stopped; judging the file against the history ...")
    except DqError:
        print(f"dq: what there is to see of it is kept: {play.db}, {play.log}", file=sys.stderr)
        raise
    return _verdict(play, tally, time.monotonic() - began)


def _verdict(play: Play, tally: Tally, seconds: float) -> dict[str, Any]:
    script = Path(__file__).with_name("verdict.py")
    done = subprocess.run([sys.executable, "-I", str(script), play.db, play.log], stdout=subprocess.PIPE, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise DqError(f"{script.name} ended with {done.returncode} and without an answer") from error
    Path(f"{play.log}.locks").unlink(missing_ok=True)
    return {
        "runs": found["runs"],
        "steps": found["steps"],
        "kills": dict(tally.kills),
        **{kind: found[kind] for kind in ("lost", "unfinished", "repeated", "overlaps")},
        "orphans": len(tally.left),
        "wrong": found["wrong"],
        "seconds": round(seconds, 2),
        "seed": play.seed,
        "history": play.log,
        "problems": [
            *tally.troubles,
            *(f"{kind} {pid} has outlived its engine" for kind, pid in tally.left),
            *found["problems"],
        ],
    }


def _as_text(told: dict[str, Any], kept: str) -> str:
    kills = ", ".join(f"{number} {kind}" for kind, number in told["kills"].items())
    lines = [
        f"{told['runs']} runs, {told['steps']} steps in {told['seconds']:.1f} s (seed {told['seed']})",
        f"faults      {sum(told['kills'].values())} ({kills})",
        f"lost        {told['lost']}   acknowledged, and not in the file",
        f"unfinished  {told['unfinished']}   runs and steps that have not ended",
        f"repeated    {told['repeated']}   began again after their recorded end",
        f"overlaps    {told['overlaps']}   steps at work twice at the same time",
        f"orphans     {told['orphans']}   processes that have outlived the engine",
        f"wrong       {told['wrong']}   results that are not the known ones",
        *(f"FINDING: {problem}" for problem in told["problems"]),
        f"history     {told['history']}",
    ]
    if kept:
        lines.append(f"look at     dq ls --db {kept}")
    return "\n".join(lines)
