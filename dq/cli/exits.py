"""What the exit codes of `dq` mean, and which error leads to which."""

from __future__ import annotations

from typing import NamedTuple

from dq import errors

OK = 0
FAILED = 1  # the run failed, or what was promised did not hold
USAGE = 2  # the command, its arguments or what they name are not right
FILE = 3  # the database can't be used
BLOCKED = 4  # a run's history does not fit the code
IN_USE = 75  # another supervisor works on the database: try again
INTERRUPTED = 130  # Ctrl-C

HELP = """\b
Exit codes:
  0    all went well
  1    the run failed, or work was abandoned
  2    the command, its arguments or what they name are not right
  3    the database file can't be used
  4    a run is blocked, or would be: its recorded history does not fit the code
  75   another supervisor works on the database; try again
  130  interrupted"""


class Advice(NamedTuple):
    """How a command ends on an error: its exit code, and a command or two that help."""

    code: int
    help: str


# The first kind that fits counts. Errors of the file say in their own text what helps.
_TABLE: list[tuple[type[BaseException], Advice]] = [
    (errors.DatabaseInUse, Advice(IN_USE, "")),
    (errors.StoreError, Advice(FILE, "")),
    (errors.RunBlocked, Advice(BLOCKED, "Its steps are kept: `dq show ID --db {db}` lists them.")),
    (errors.RunConflict, Advice(USAGE, "Choose another --id, or look at the run: `dq show ID --db {db}`.")),
    (errors.BadFork, Advice(USAGE, "The run's steps: `dq show ID --db {db}`.")),
    (errors.NoSuchRun, Advice(USAGE, "The runs: `dq ls --db {db}`.")),
    (errors.NoSuchStep, Advice(USAGE, "The steps of a run: `dq show ID --db {db}`.")),
    (errors.NoSuchSchedule, Advice(USAGE, "")),
    (errors.BadSchedule, Advice(USAGE, "")),
    (errors.ScheduleConflict, Advice(USAGE, "")),
    (errors.NoSuchLetter, Advice(USAGE, "")),
    (errors.BadExecutor, Advice(USAGE, "What is installed: `dq executors`.")),
    (errors.SupervisorLost, Advice(FAILED, "What was acknowledged is kept. The same command again goes on.")),
    (errors.BadRunId, Advice(USAGE, "")),
    (errors.SignatureMismatch, Advice(FILE, "")),
    (errors.BadName, Advice(USAGE, "")),
    (errors.GuardMissing, Advice(USAGE, "")),
    (errors.NotPicklable, Advice(USAGE, "")),
    (errors.NotImportable, Advice(USAGE, "")),
]


def advise(error: BaseException) -> Advice:
    """How a command ends on an error of dq.

    >>> advise(errors.DatabaseInUse("")).code
    75
    """
    return next((advice for kind, advice in _TABLE if isinstance(error, kind)), Advice(FAILED, ""))
