"""`dq replay`."""

from __future__ import annotations

import dis
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dq.cli import exits
from dq.cli.options import db_option, json_option
from dq.model.screen import safe

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from dq.client.recording import Recording
    from dq.client.replaying import Tape
    from dq.flow.player import Delivery
    from dq.flow.verdict import Verdict

_HASH_SEED = "0"  # as in hosts
_AGAIN = "DQ_REPLAY_AGAIN"  # set for the second start of this command, which the first one makes


@click.command("replay")
@click.argument("id")
@db_option
@click.option(
    "--pdb", "debug", is_flag=True, help="Stop in the debugger where the workflow begins, and where it raises."
)
@click.option("--quiet", is_flag=True, help="Without a line for each step.")
@json_option
def command(id: str, db: str, debug: bool, quiet: bool, as_json: bool) -> int:
    r"""Run the run ID again from its record, here, with the code that is on disk now.

    No step runs and nothing is written; what steps came to is on record. Works for runs that have ended and for those that
    have not. breakpoint() in the workflow stops in the debugger. The exit code is 1 where the run comes to something else
    than is on record, and 4 where its record does not fit the code.

    \b
    Example:
        dq replay movie-1 --pdb --db movie.db
    """
    from dq.client.replaying import Tape

    tape = Tape.read(db, id)
    _start_like_a_host(tape.recording)
    _enter(tape.recording)
    hear = None if quiet or as_json else _print_delivery
    verdict = tape.play(_finder(tape, debug=debug), hear)
    if debug and verdict.error is not None and verdict.error.__traceback__ is not None:
        import pdb  # noqa: T100 -- it is asked for

        pdb.post_mortem(verdict.error.__traceback__)
    if as_json:
        print(json.dumps(_as_dict(id, verdict), default=repr))
    else:
        _print_end(tape.recording, verdict)
    return _code(verdict)


def _start_like_a_host(recording: Recording) -> None:
    """Starts this command again with the interpreter of the run's hosts, and their order of sets, unless it is so."""
    if os.environ.pop(_AGAIN, ""):
        return
    python = recording.context.python if os.path.isfile(recording.context.python) else sys.executable
    if os.environ.get("PYTHONHASHSEED") == _HASH_SEED and python == sys.executable:
        return
    env = {**os.environ, "PYTHONHASHSEED": _HASH_SEED, _AGAIN: "1"}
    root = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [env.get("PYTHONPATH")])])
    sys.stdout.flush()
    os.execve(python, [python, "-P", "-m", "dq", *sys.argv[1:]], env)


def _enter(recording: Recording) -> None:
    """Makes this process one that the run's code comes from."""
    import traceback

    from dq.cli.targets import be_nobody
    from dq.executor import current, script

    be_nobody()
    try:
        with current.importing():
            script.enter(recording.context)
    except Exception as error:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=-6))
        raise click.UsageError(f"the code of run {recording.name} can't be imported:\n{text}") from error


def _finder(tape: Tape, *, debug: bool) -> Callable[[], Callable[..., Any]]:
    def find() -> Callable[..., Any]:
        body = tape.resolve()
        if debug:
            _break_at(body.__code__)
        return body

    return find


def _break_at(code: CodeType) -> None:
    """Has the debugger stop at the first line of a function."""
    import pdb  # noqa: T100 -- it is asked for

    first = code.co_firstlineno
    lines = [line for _, line in dis.findlinestarts(code) if line and line > first]
    debugger = pdb.Pdb()
    debugger.rcLines = [f"tbreak {code.co_filename}:{min(lines, default=first)}", "continue"]
    debugger.set_trace(sys._getframe(1))


def _print_delivery(delivery: Delivery) -> None:
    print(safe(f"{delivery.seq:>6}  {delivery.call} -> {delivery.came}"), flush=True)


def _print_end(recording: Recording, verdict: Verdict) -> None:
    match verdict.outcome:
        case "finished":
            print(safe(f"{recording.name} completed: {verdict.result!r}"))
        case "failed":
            print(safe(f"{recording.name} {verdict.state}:\n{verdict.reason}"))
        case "blocked":
            print(safe(f"{recording.name} is blocked. {verdict.reason}"))
        case _:
            print(safe(f"{recording.name} waits for what is not on record:"))
            print(safe("".join(f"    {spot}\n" for spot in verdict.waits_for)), end="")
    for note in verdict.notes():
        print(f"note: {safe(note)}")
    if verdict.same is not None:
        print("as on record" if verdict.same else f"on record it has {recording.state} with something else")


def _as_dict(id: str, verdict: Verdict) -> dict[str, object]:
    return {
        "id": id,
        "outcome": verdict.outcome,
        "state": verdict.state,
        "same": verdict.same,
        "reason": verdict.reason,
        "result": verdict.result,
        "waits_for": [str(spot) for spot in verdict.waits_for],
        "asked": [str(spot) for spot in verdict.asked],
        "notes": verdict.notes(),
    }


def _code(verdict: Verdict) -> int:
    if verdict.outcome == "blocked":
        return exits.BLOCKED
    if verdict.same is None:
        return exits.OK if verdict.goes_on else exits.FAILED
    return exits.OK if verdict.same else exits.FAILED
