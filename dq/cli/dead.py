"""`dq dead`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import click

from dq.cli import spans
from dq.cli.options import db_option, json_option
from dq.cli.table import local, render
from dq.model.screen import safe

if TYPE_CHECKING:
    from dq.client.engine import Engine
    from dq.client.letters import DeadLetter
    from dq.client.steps import StepFuture

_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@click.group("dead")
def command() -> None:
    """What ended badly: steps that killed their workers, steps submitted alone that failed, runs that failed."""


@command.command("ls")
@db_option
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow; the last word of its name is enough.")
@click.option("--step", metavar="NAME", help="Only steps of this name; the last word of it is enough.")
@click.option("--since", callback=spans.option, metavar="SPAN", help="Only what ended within this time, such as 24h.")
@click.option("--like", metavar="TEXT", help="Only where type, text or traceback hold this.")
@click.option("--all", "everything", is_flag=True, help="Also what was retried or discarded.")
@click.option("--group", "grouped", is_flag=True, help="One line for each cause, with how often it has struck.")
@click.option(
    "--limit", type=click.IntRange(1, 1 << 62), default=50, show_default=True, help="How many lines, newest first."
)
@json_option
def ls(db: str, everything: bool, grouped: bool, limit: int, as_json: bool, **wishes: Any) -> None:
    """List dead letters. Only reads the file; works with or without a supervisor."""
    from dq.client.letters import groups

    letters = sorted(_found(db, everything, _filter(**wishes)), key=lambda one: one.ended_at, reverse=True)
    if grouped:
        made = groups(letters)[:limit]
        if as_json:
            rows = [{**one._asdict(), "first": one.first.isoformat(), "last": one.last.isoformat()} for one in made]
            print(json.dumps(rows, indent=1))
        elif made:
            heads = ["cause", "times", "name", "failure", "first", "last", "example"]
            print(render(heads, [[one.fingerprint, one.times, one.name, f"{one.type}: {one.text}", _when(one.first),
                                  _when(one.last), one.example] for one in made]))  # fmt: skip
        return
    if as_json:
        print(json.dumps([as_dict(one) for one in letters[:limit]], indent=1))
        return
    if letters:
        heads = ["id", "name", "ended", "state", "attempts", "at", "failure"]
        print(render(heads, [[one.id, one.name, one.ended, one.state, one.attempts, _when(one.ended_at),
                              f"{one.type}: {one.text}"] for one in letters[:limit]]))  # fmt: skip
    if len(letters) > limit:
        print(f"... and {len(letters) - limit} more; --limit shows them, --group sums them up")


@command.command("show")
@click.argument("id")
@db_option
@json_option
def show(id: str, db: str, as_json: bool) -> None:
    """Show the evidence: every attempt, and the failure with its traceback. Only reads the file."""
    from dq.cli.evidence import attempts, sheet
    from dq.errors import NoSuchLetter

    letter = next(_found(db, True, lambda one: str(one.id) == id), None)
    if letter is None:
        raise NoSuchLetter(f"There is no dead letter {id} in {db}.")
    tried = attempts(db, letter)
    if as_json:
        print(json.dumps({**as_dict(letter), "attempt_list": tried}, indent=1))
        return
    print(safe(sheet(letter, tried)))


@command.command("retry")
@_ids
@db_option
@json_option
def retry(ids: tuple[str, ...], db: str, as_json: bool) -> None:
    r"""Try dead letters once more: a step as a new step, a run as a copy that goes on from where it failed.

    Works with or without a supervisor; without one it begins with the next `dq up` or engine.

    \b
    Example:
        dq dead retry 4711 movie-1 --db movie.db
    """

    def again(engine: Engine, id: str) -> str:
        if _is_run(db, id):
            return f"run {id} is tried again as run {engine.retry(id).id}"
        return f"step {id} is tried again as step {cast('StepFuture[Any]', engine.retry_step(int(id)))._id}"

    _each(db, ids, again, as_json=as_json)


@command.command("discard")
@_ids
@db_option
@json_option
def discard(ids: tuple[str, ...], db: str, as_json: bool) -> None:
    """Take dead letters off the list: they are dealt with. `dq gc` deletes them in its time."""

    def away(engine: Engine, id: str) -> str:
        return engine.discard(id if _is_run(db, id) else int(id))

    _each(db, ids, away, as_json=as_json)


def _each(db: str, ids: tuple[str, ...], do: Callable[[Engine, str], str], *, as_json: bool) -> None:
    from dq.client.engine import Engine

    for id in ids:
        _is_run(db, id)  # what can't be meant is refused before anything is done
    with Engine(db, workers=0) as engine:
        for id in ids:
            told = do(engine, id)
            print(json.dumps({"id": id, "told": told}) if as_json else safe(told))


def _is_run(db: str, id: str) -> bool:
    """Whether an id is a run's, else a step's. Raises NoSuchLetter."""
    from dq.errors import NoSuchLetter
    from dq.store.reader import Reader

    with Reader.open(db) as reader:
        if reader.run(id) is not None:
            return True
    if not (id.isascii() and id.isdigit() and int(id) < 1 << 63):
        raise NoSuchLetter(f"There is neither a run nor a step {id} in {db}.")
    return False


def _found(db: str, everything: bool, wanted: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
    from dq.client.letters import letter
    from dq.store.reader import Reader

    with Reader.open(db) as reader:
        for page in reader.archive().letters():
            for line in page:
                one = letter(line)
                if (everything or one.state == "open") and wanted(one):
                    yield one


def _filter(
    workflow: str | None, step: str | None, since: float | None, like: str | None
) -> Callable[[DeadLetter], bool]:
    after = datetime.now(UTC) - timedelta(seconds=since) if since is not None else None

    def wanted(one: DeadLetter) -> bool:
        if workflow is not None and not (one.is_run and _is_called(one.name, workflow)):
            return False
        if step is not None and (one.is_run or not _is_called(one.name, step)):
            return False
        if after is not None and one.ended_at < after:
            return False
        return like is None or like in f"{one.type}\n{one.text}\n{one.traceback}"

    return wanted


def _is_called(name: str, wanted: str) -> bool:
    """Whether people mean a function by a name: the whole one, without its module, or the last word of it."""
    short = name.rpartition(":")[2]
    return wanted in (name, short, short.rpartition(".")[2])


def as_dict(one: DeadLetter) -> dict[str, object]:
    times = {"created_at": one.created_at.isoformat(), "ended_at": one.ended_at.isoformat()}
    return {**one._asdict(), **times, "fingerprint": one.fingerprint}


def _when(at: datetime) -> str:
    return local(int(at.timestamp() * 1_000_000))
