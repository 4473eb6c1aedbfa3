"""`dq up`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from dq.cli import exits, spans
from dq.cli.options import db_option, executor_option, json_option, parse_executors, workers_option

if TYPE_CHECKING:
    from collections.abc import Callable


@click.command("up")
@click.argument("target", required=False, metavar="[FILE_OR_MODULE]")
@db_option
@workers_option
@executor_option
@click.option("--until-idle", is_flag=True, help="Stop when no run is unfinished.")
@click.option("--start-method", type=click.Choice(["fork", "spawn"]), default="fork", show_default=True)
@click.option("--hang", type=float, default=10.0, show_default=True, help="Seconds until a stuck worker is killed.")
@click.option(
    "--grace", type=float, default=5.0, show_default=True, help="Seconds that steps have to finish at the end."
)
@click.option(
    "--recycle-after", type=click.IntRange(0), default=0, metavar="STEPS", help="Replace a worker after so many steps."
)
@click.option(
    "--recycle-rss",
    type=click.IntRange(0),
    default=0,
    metavar="BYTES",
    help="Replace a worker that has so much in memory.",
)
@click.option(
    "--keep", callback=spans.option, metavar="SPAN", help="Delete what ended longer ago, such as 30d, every hour."
)
@json_option
def command(
    target: str | None,
    db: str,
    workers: int | None,
    executors: tuple[str, ...],
    until_idle: bool,
    start_method: str,
    hang: float,
    grace: float,
    recycle_after: int,
    recycle_rss: int,
    keep: float | None,
    as_json: bool,
) -> int:
    r"""Work on a database until stopped: every unfinished run goes on, those of dead scripts too.

    What @dq.schedule marks in FILE_OR_MODULE is put on record first, or changed to what the code says now. All schedules
    of the database fire, with or without it; `dq schedules` lists them.

    Ctrl-C or SIGTERM lets running steps finish within --grace; the second one hands them back at once, and they run
    again next time. The exit code is 0 when nothing had to be handed back.

    \b
    Example:
        dq up flows.py --db movie.db
    """
    from dq.cli.keeper import Keeper
    from dq.client.launcher import Launcher, Options
    from dq.executor import signing

    options = Options(
        workers, parse_executors(executors), start_method, hang, grace, False, recycle_after, recycle_rss, keep or 0.0
    )

    def say(text: str) -> None:
        print(f"dq: {text}", file=sys.stderr, flush=True)

    if target is not None:
        _register(target, db, say)
    launcher = Launcher(db, options)
    launcher.signer = signing.own()
    code = Keeper(launcher, say).keep(_Idle(db) if until_idle else None)
    blocked = _count_blocked(db)
    if as_json:
        print(json.dumps({"db": db, "drained": code == 0, "blocked": blocked}))
    if code:
        say("running steps were handed back; they run again next time")
        return exits.FAILED
    if until_idle and blocked:
        say(f"{blocked} runs are blocked; `dq ls --open` lists them")
        return exits.BLOCKED
    return exits.OK


def _register(target: str, db: str, say: Callable[[str], None]) -> None:
    from dq.cli.targets import load_scheduled
    from dq.client.engine import Engine

    workflows = load_scheduled(target)
    with Engine(db, workers=0) as engine:
        for workflow in workflows:
            for mark in workflow.schedules:
                schedule = engine.schedule(workflow, id=mark.id)
                due = f"next at {schedule.next_at:%Y-%m-%d %H:%M:%S} UTC" if schedule.next_at else "paused"
                say(f"schedule {schedule.id}: {schedule.expression}, {due}")


class _Idle:
    """Whether nothing is left that could go on."""

    def __init__(self, db: str) -> None:
        self._db = db

    def __call__(self) -> bool:
        from dq.store.reader import Reader

        with Reader.open(self._db) as reader:
            return not reader.run_counts().get("running") and not reader.open_steps(limit=1)


def _count_blocked(db: str) -> int:
    from dq.store.reader import Reader

    with Reader.open(db) as reader:
        return reader.run_counts().get("blocked", 0)
