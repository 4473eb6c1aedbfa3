"""`dq queues`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from dq.cli.options import db_option, json_option
from dq.cli.table import render

if TYPE_CHECKING:
    from dq.client.queues import QueueInfo


@click.command("queues")
@db_option
@json_option
def command(db: str, as_json: bool) -> None:
    """List queues: what waits, what runs, and the limits. Works with or without a supervisor."""
    from dq.client.engine import Engine

    with Engine(db, workers=0) as engine:
        infos = engine.queues()
    if as_json:
        print(json.dumps([as_dict(info) for info in infos], indent=1))
    elif infos:
        heads = ["queue", "waiting", "running", "oldest", "concurrency", "per worker", "rate", ""]
        print(render(heads, [_row(info) for info in infos]))
    else:
        print("no queues; a step has one with @dq.step(queue=dq.Queue(...))")


def as_dict(info: QueueInfo) -> dict[str, object]:
    """A queue for programs."""
    told = info._asdict()
    told["oldest_at"] = info.oldest_at.isoformat() if info.oldest_at is not None else None
    return told


def _row(info: QueueInfo) -> list[object]:
    rate = f"{info.rate[0]} in {info.rate[1]:g} s" if info.rate else "-"
    marks = ["paused"] if info.paused else []
    marks += ["set by hand"] if info.by_hand else []
    oldest = info.oldest_at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if info.oldest_at is not None else "-"
    return [
        info.name, info.waiting, info.running, oldest, info.concurrency or "-", info.per_worker or "-", rate,
        ", ".join(marks),
    ]  # fmt: skip
