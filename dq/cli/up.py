"""`dq up`."""

from __future__ import annotations

import json
import sys

import click

from dq.cli import exits
from dq.cli.options import db_option, executor_option, json_option, parse_executors, workers_option


@click.command("up")
@db_option
@workers_option
@executor_option
@click.option("--until-idle", is_flag=True, help="Stop when no run is unfinished.")
@click.option("--start-method", type=click.Choice(["fork", "spawn"]), default="fork", show_default=True)
@click.option("--hang", type=float, default=10.0, show_default=True, help="Seconds until a stuck worker is killed.")
@click.option(
    "--grace", type=float, default=5.0, show_default=True, help="Seconds that steps have to finish at the end."
)
@json_option
def command(
    db: str,
    workers: int | None,
    executors: tuple[str, ...],
    until_idle: bool,
    start_method: str,
    hang: float,
    grace: float,
    as_json: bool,
) -> int:
    """Work on a database until stopped: every unfinished run goes on, those of dead scripts too.

    Ctrl-C or SIGTERM lets running steps finish within --grace; the second one hands them back at once, and they run
    again next time. The exit code is 0 when nothing had to be handed back.
    """
    from dq.cli.keeper import Keeper
    from dq.client.launcher import Launcher, Options

    options = Options(workers, parse_executors(executors), start_method, hang, grace, ephemeral=False)

    def say(text: str) -> None:
        print(f"dq: {text}", file=sys.stderr, flush=True)

    code = Keeper(Launcher(db, options), say).keep(_Idle(db) if until_idle else None)
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
