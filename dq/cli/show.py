"""`dq show`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from dq.cli import ls
from dq.cli.options import db_option, json_option
from dq.cli.table import iso, local, render, span
from dq.errors import NoSuchRun
from dq.model.screen import safe

if TYPE_CHECKING:
    from dq.store.reader import AttemptLine, Reader, RunLine, StepLine

_PAGE = 1000


@click.command("show")
@click.argument("id")
@db_option
@click.option(
    "--limit", type=click.IntRange(0, 1 << 62), default=50, show_default=True, help="How many steps; 0 for all."
)
@json_option
def command(id: str, db: str, limit: int, as_json: bool) -> None:
    """Show one run and its steps; or one step, by its number, with all its attempts.

    Only reads the file; works with or without a supervisor. Arguments and results stay closed: opening them would run
    code of whoever wrote them.
    """
    from dq.store.reader import Reader

    with Reader.open(db) as reader:
        run = reader.run(id)
        if run is not None:
            _show_run(reader, run, limit, as_json=as_json)
            return
        step = reader.step(int(id)) if id.isascii() and id.isdigit() and int(id) < 1 << 63 else None
        if step is None:
            raise NoSuchRun(f"There is neither a run nor a step {id} in {db}.")
        _show_step(reader, step, as_json=as_json)


def _show_run(reader: Reader, run: RunLine, limit: int, *, as_json: bool) -> None:
    steps = _steps(reader, run, limit)
    error = _failure(reader, run)
    forked_from = _original(reader, run)
    if as_json:
        told = {"forked_from": forked_from, "error": error}
        shown = {**ls.as_dict(run), **told, "step_list": [_step_dict(step) for step in steps]}
        print(json.dumps(shown, indent=1))
        return
    print(f"run        {safe(run.name)}\nworkflow   {safe(str(run.workflow))}\nstate      {run.state}")
    print(f"steps      {run.done} of {run.steps} asked for so far are done")
    took = span(run.created_at, run.ended_at)
    print(f"started    {local(run.created_at)}{f', took {took}' if took else ''}")
    if forked_from:
        print(f"forked     from {safe(forked_from)}")
    if run.reason:
        print(f"reason     {safe(run.reason)}")
    if steps:
        heads = ["step", "name", "state", "attempt", "pid", "began", "took"]
        print("\n" + render(heads, [_step_row(step) for step in steps]))
    if run.steps > len(steps):
        print(f"... and {run.steps - len(steps)} more; --limit 0 shows all")
    if error:
        print("\n" + safe(error["traceback"].rstrip() or f"{error['type']}: {error['text']}"))


def _original(reader: Reader, run: RunLine) -> str | None:
    """The run whose record this one's begins with."""
    archive = reader.archive()
    record = archive.run_by_id(run.id)
    original = archive.run_by_id(record.forked_from) if record is not None and record.forked_from else None
    return original.name if original is not None else None


def _steps(reader: Reader, run: RunLine, limit: int) -> list[StepLine]:
    steps: list[StepLine] = []
    after = 0
    while not limit or len(steps) < limit:
        page = reader.steps(run.id, after=after, limit=min(_PAGE, limit - len(steps)) if limit else _PAGE)
        if not page:
            break
        steps += page
        after = page[-1].id
    return steps


def _failure(reader: Reader, run: RunLine) -> dict[str, str] | None:
    """The exception of a failed run, as text: nothing is unpickled here."""
    if run.state != "failed":
        return None
    from dq.executor import failures

    payloads = reader.run_payloads(run.name)
    told = failures.read(payloads[1]) if payloads and payloads[1] else None
    return {"type": told.type_name, "text": told.text, "traceback": told.traceback} if told else None


def _show_step(reader: Reader, step: StepLine, *, as_json: bool) -> None:
    attempts = reader.attempts(step.id)
    if as_json:
        print(json.dumps({**_step_dict(step), "attempts": [_attempt_dict(one) for one in attempts]}, indent=1))
        return
    print(
        safe(f"step       {step.id} {step.name}\nrun        {step.run or '(submitted alone)'}\nstate      {step.state}")
    )
    if attempts:
        heads = ["attempt", "outcome", "pid", "epoch", "ended", "cause"]
        print("\n" + render(heads, [_attempt_row(one) for one in attempts]))
    for one in attempts:
        if one.cause and "\n" in one.cause:
            print(safe(f"\nattempt {one.attempt}:\n{one.cause}"))


def _step_row(step: StepLine) -> list[object]:
    took = span(step.began_at, step.ended_at)
    return [step.id, step.name, step.state, step.attempt, step.pid, local(step.began_at), took]


def _attempt_row(one: AttemptLine) -> list[object]:
    cause = one.cause.splitlines()[0] if one.cause else ""
    return [one.attempt, one.outcome or "running", one.pid, one.epoch, local(one.ended_at), cause]


def _step_dict(step: StepLine) -> dict[str, object]:
    times = {key: iso(getattr(step, key)) for key in ("created_at", "claimed_at", "began_at", "ended_at")}
    return {**step._asdict(), **times}


def _attempt_dict(one: AttemptLine) -> dict[str, object]:
    return {
        **one._asdict(),
        "charged": bool(one.charged),
        "began_at": iso(one.began_at),
        "ended_at": iso(one.ended_at),
    }
