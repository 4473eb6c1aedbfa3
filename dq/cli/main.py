"""The command `dq`: its subcommands by name, and how any of them ends."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dq.cli import exits
from dq.cli.options import DB
from dq.errors import DqError
from dq.model.screen import safe

if TYPE_CHECKING:
    from click import Command, Context, HelpFormatter

# name -> (module that holds `command`, what the list of commands says); no module is imported to print the list
_COMMANDS = {
    "demo": ("dq.cli.demo.command", "Do real work while every process is killed, and prove that nothing is lost."),
    "chaos": ("dq.cli.chaos.command", "Kill and stop the processes of a workflow again and again, and judge it."),
    "run": ("dq.cli.run", "Run a workflow, or go on with it, and print its result."),
    "start": ("dq.cli.start", "Put a run on record for whoever works on the database, and return."),
    "up": ("dq.cli.up", "Work on a database until stopped: finish all unfinished runs."),
    "ls": ("dq.cli.ls", "List runs."),
    "show": ("dq.cli.show", "Show one run and its steps."),
    "signal": ("dq.cli.signal", "Send a signal to a run."),
    "cancel": ("dq.cli.cancel", "Cancel a run; twice, to end it at once."),
    "resume": ("dq.cli.resume", "Let a blocked run try again with the code that is on disk now."),
    "retry": ("dq.cli.retry", "Try a failed or cancelled run again, in a copy; let a parked step begin."),
    "fork": ("dq.cli.fork", "Make a new run of an old one, from one of its steps on."),
    "check": ("dq.cli.check", "Say which unfinished runs would not go on with the code that is on disk now."),
    "replay": ("dq.cli.replay", "Run a run again from its record, here, perhaps in the debugger."),
    "schedules": ("dq.cli.schedules", "List schedules; pause, resume, delete or trigger one."),
    "dead": ("dq.cli.dead", "List, show, retry or discard what ended badly."),
    "gc": ("dq.cli.gc", "Delete what ended long ago."),
    "backup": ("dq.cli.backup", "Copy a database while it is worked on."),
    "doctor": ("dq.cli.doctor.command", "Check a database and its surroundings, and say what to do."),
    "queues": ("dq.cli.queues", "List queues: what waits, what runs, and their limits."),
    "queue": ("dq.cli.queue", "Pause or resume a queue, or change its limits."),
    "executors": ("dq.cli.executors", "List the executors that are installed."),
}


class _Lazy(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: Command = importlib.import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, epilog=exits.HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dq-durable", prog_name="dq")
@click.option(
    "--signing-key-file",
    envvar="DQ_SIGNING_KEY_FILE",
    show_envvar=True,
    metavar="FILE",
    help="Sign and check payloads with the key in FILE, which has the mode 0600.",
)
def cli(signing_key_file: str | None) -> None:
    """Durable workflows on one SQLite file: kill any process at any moment, and each run goes on."""
    if signing_key_file:
        from dq.executor import signing

        try:
            signing.use(signing.read_key(signing_key_file))
        except ValueError as error:
            raise click.UsageError(f"{signing_key_file}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    meta: dict[str, str] = {}
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        with cli.make_context("dq", words) as context:
            meta = context.meta  # shared with the subcommand's context
            code = cli.invoke(context)
            return code if isinstance(code, int) else exits.OK
    except (KeyboardInterrupt, click.Abort):
        print("dq: interrupted", file=sys.stderr)
        return exits.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return exits.USAGE
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except BrokenPipeError:
        return _reader_gone()
    except DqError as error:
        return _explain(error, meta.get(DB, "dq.db"))


def _explain(error: DqError, db: str) -> int:
    """Says what went wrong, and what helps. An error that is not dq's own is a bug and keeps its traceback."""
    advice = exits.advise(error)
    print(f"dq: {safe(str(error))}", file=sys.stderr)
    if advice.help:
        print(advice.help.format(db=shlex.quote(db)), file=sys.stderr)
    return advice.code


def _reader_gone() -> int:
    """Whoever reads the output has closed it, as `head` does; what Python would flush at exit goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.OK
