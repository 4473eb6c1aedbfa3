"""`dq ls`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from dq.cli.options import db_option, json_option
from dq.cli.table import iso, local, render, span

if TYPE_CHECKING:
    from dq.store.reader import RunLine, StepCounts


@click.command("ls")
@db_option
@click.option("--all", "everything", is_flag=True, help="Without a limit.")
@click.option("--open", "unfinished", is_flag=True, help="Only runs that are running or blocked.")
@click.option("--limit", type=click.IntRange(1, 1 << 62), default=50, show_default=True, help="How many, newest first.")
@json_option
def command(db: str, everything: bool, unfinished: bool, limit: int, as_json: bool) -> None:
    """List runs, newest first. Only reads the file; works with or without a supervisor."""
    from dq.store.reader import LAST_ID, Reader

    with Reader.open(db) as reader:
        runs: list[RunLine] = []
        before = LAST_ID
        while everything or len(runs) < limit:
            page = reader.runs(all=not unfinished, before=before, limit=1000 if everything else limit - len(runs))
            if not page:
                break
            runs += page
            before = page[-1].id
        # What is read is put into words here, since what a damaged page holds may show only then.
        told = _as_json(runs) if as_json else _as_text(runs, reader.run_counts(), reader.step_counts())
    print(told)


def _as_json(runs: list[RunLine]) -> str:
    return json.dumps([as_dict(run) for run in runs], indent=1)


def _as_text(runs: list[RunLine], counts: dict[str, int], alone: StepCounts) -> str:
    totals = ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) or "no runs"
    lines = [f"{totals}; {alone.done} of {alone.steps} steps done"]
    if runs:
        lines.insert(
            0, render(["id", "workflow", "state", "done", "steps", "started", "took"], [_row(run) for run in runs])
        )
    return "\n".join(lines)


def as_dict(run: RunLine) -> dict[str, object]:
    """A run for programs."""
    return {
        "id": run.name,
        "number": run.id,
        "workflow": run.workflow,
        "state": run.state,
        "done": run.done,
        "steps": run.steps,
        "created_at": iso(run.created_at),
        "ended_at": iso(run.ended_at),
        "reason": run.reason,
    }


def _row(run: RunLine) -> list[object]:
    took = span(run.created_at, run.ended_at)
    return [run.name, run.workflow, run.state, run.done, run.steps, local(run.created_at), took]
