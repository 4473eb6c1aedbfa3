"""`dq run`."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from dq.cli import exits
from dq.cli.options import (
    db_option,
    executor_option,
    json_option,
    parse_arguments,
    parse_executors,
    workers_option,
)
from dq.errors import RunBlocked, StoreError
from dq.model.screen import safe

if TYPE_CHECKING:
    from dq.cli.progress import Meter
    from dq.client.run import Run

_REFRESH = 0.2  # seconds between two looks at the progress


@click.command("run")
@click.argument("target", metavar="FILE_OR_MODULE:WORKFLOW")
@click.argument("arguments", nargs=-1, metavar="[ARG as JSON]...")
@db_option
@click.option("--id", help="The run's id: the same id is the same run.  [default: a new one]")
@workers_option
@executor_option
@json_option
def command(
    target: str,
    arguments: tuple[str, ...],
    db: str,
    id: str | None,
    workers: int | None,
    executors: tuple[str, ...],
    as_json: bool,
) -> int:
    r"""Run a workflow and print its result; with the --id of an earlier run, go on with that one.

    \b
    Example:
        dq run flows.py:movie 240 --db movie.db --id movie-1
    """
    from dq.cli.progress import open_meter
    from dq.cli.targets import load
    from dq.client.engine import Engine

    args = parse_arguments(arguments)
    more = parse_executors(executors)
    workflow = load(target)
    with Engine(db, workers=workers, executors=more) as engine:
        run = engine.start(workflow, *args, id=id)
        try:
            with open_meter(sys.stderr, run.id, quiet=as_json) as meter:
                result, error = _follow(run, meter)
        except KeyboardInterrupt:
            _say_how_to_go_on(target, arguments, db, run.id)
            raise
    return _tell(run.id, result, error, as_json=as_json)


def _follow(run: Run[Any], meter: Meter) -> tuple[Any, Exception | None]:
    """Shows the progress until the run ends. Returns its result, and its exception if it has one."""
    timeout: float | None = _REFRESH
    while True:
        try:
            result = run.result(timeout=timeout)
        except TimeoutError as error:
            if timeout is None:
                return None, error  # the workflow's own
            if run.done():
                timeout = None  # it has ended since, or has raised this itself: ask once more
            else:
                meter.update(*run.progress())
        except Exception as error:  # noqa: BLE001 -- a workflow may raise anything, and here it is data
            return None, error
        else:
            meter.update(*run.progress())
            return result, None


def _tell(id: str, result: Any, error: Exception | None, *, as_json: bool) -> int:
    code = _code(error)
    if as_json:
        failure = {"type": type(error).__name__, "text": str(error)} if error else None
        print(json.dumps({"id": id, "ok": error is None, "result": result, "error": failure}, default=repr))
    elif error is None:
        print(result if isinstance(result, str) else repr(result))
    else:
        _print_failure(error)
    return code


def _code(error: Exception | None) -> int:
    if error is None:
        return exits.OK
    return exits.advise(error).code if isinstance(error, (RunBlocked, StoreError)) else exits.FAILED


def _print_failure(error: Exception) -> None:
    """The exception as it was where it was raised, without the frames of this command."""
    import traceback

    from dq.executor.failures import RemoteTraceback

    there = error.__cause__.text if isinstance(error.__cause__, RemoteTraceback) else ""
    print(safe(there.rstrip() or "".join(traceback.format_exception_only(error)).rstrip()), file=sys.stderr)


def _say_how_to_go_on(target: str, arguments: tuple[str, ...], db: str, id: str) -> None:
    command = shlex.join(["dq", "run", target, *arguments, "--db", db, "--id", id])
    print(f"dq: run {id} is kept. To go on: {command}", file=sys.stderr)
