"""`dq schedules`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from dq.cli.options import db_option, json_option
from dq.cli.table import iso, local, render

if TYPE_CHECKING:
    from dq.store.reader import ScheduleLine

_ACTIONS = ("pause", "resume", "delete", "trigger")


@click.command("schedules")
@click.argument("action", required=False, type=click.Choice(_ACTIONS))
@click.argument("id", required=False)
@db_option
@json_option
def command(action: str | None, id: str | None, db: str, as_json: bool) -> None:
    r"""List schedules, or change the schedule ID.

    pause: nothing is started any more, until it is resumed. resume: it goes on from now. delete: it is gone, and the runs
    that it has started go on. trigger: a run is started now. What fires is fired by a supervisor that has workers, such as
    `dq up`.

    \b
    Example:
        dq schedules --db movie.db
        dq schedules pause nightly --db movie.db
    """
    if action is None:
        _show(db, as_json)
    elif id is None:
        raise click.UsageError(f"Say which schedule: dq schedules {action} ID. `dq schedules` lists them.")
    else:
        told = _change(db, action, id)
        print(json.dumps({"id": id, "action": action, **told}) if as_json else _sentence(id, action, told))


def _change(db: str, action: str, id: str) -> dict[str, str]:
    from dq.client.engine import Engine
    from dq.client.schedules import pick

    with Engine(db, workers=0) as engine:
        schedule = pick(engine.schedules(), id)
        if action == "trigger":
            return {"run": schedule.trigger().id}
        {"pause": schedule.pause, "resume": schedule.resume, "delete": schedule.delete}[action]()
        return {"next_at": schedule.next_at.isoformat()} if action == "resume" and schedule.next_at else {}


def _sentence(id: str, action: str, told: dict[str, str]) -> str:
    match action:
        case "trigger":
            return told["run"]
        case "resume":
            return f"schedule {id} is due at {told['next_at']}"
        case _:
            return f"schedule {id} is {action}d"


def _show(db: str, as_json: bool) -> None:
    """Only reads the file; works with or without a supervisor."""
    from dq.store.reader import Reader

    with Reader.open(db) as reader:
        schedules = reader.schedules()
    if as_json:
        print(json.dumps([_as_dict(schedule) for schedule in schedules], indent=1))
    elif schedules:
        heads = ["id", "workflow", "expression", "tz", "next", "last", "skipped", "paused"]
        print(render(heads, [_row(schedule) for schedule in schedules]))
    else:
        print("no schedules; engine.schedule(workflow, ...) makes one, and `dq up FILE` those that @dq.schedule marks")


def _as_dict(schedule: ScheduleLine) -> dict[str, object]:
    """A schedule for programs."""
    return {
        **schedule._asdict(),
        "paused": bool(schedule.paused),
        "next_at": None if schedule.paused else iso(schedule.next_at),
        "last_at": iso(schedule.last_at),
        "waiting_at": iso(schedule.waiting_at),
        "created_at": iso(schedule.created_at),
    }


def _row(schedule: ScheduleLine) -> list[object]:
    due = "" if schedule.paused else local(schedule.next_at)
    tz = "" if schedule.expression.startswith("every ") else schedule.tz
    last, paused = local(schedule.last_at), "paused" if schedule.paused else ""
    return [schedule.id, schedule.workflow, schedule.expression, tz, due, last, schedule.skipped, paused]
