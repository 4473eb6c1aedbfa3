"""What the exit codes of `dq` mean, and which error leads to which."""

from __future__ import annotations

from typing import NamedTuple

from dq import errors

OK = 0
FAILED = 1  # the run failed, or what was promised did not hold
USAGE = 2  # the command, its arguments or what they name are not right
FILE = 3  # the database can't be used
BLOCKED = 4  # the run's history does not fit the code
IN_USE = 75  # another supervisor works on the database: try again
INTERRUPTED = 130  # Ctrl-C

HELP = """\b
Exit codes:
  0    all went well
  1    the run failed, or work was abandoned
  2    the command, its arguments or what they name are not right
  3    the database file can't be used
  4    the run is blocked: its recorded history does not fit the code
  75   another supervisor works on the database; try again
  130  interrupted"""


class Advice(NamedTuple):
    """How a command ends on an error: its exit code, and a command or two that help."""

    code: int
    help: str


_NO_HELP = ""
_TABLE: list[tuple[type[BaseException], Advice]] = [
    (errors.DatabaseInUse, Advice(IN_USE, "Look at it with `dq ls --db {db}`, or stop the process named above.")),
    (errors.NoSuchFolder, Advice(FILE, "Make the folder, or name another file with --db.")),
    (errors.NotADatabase, Advice(FILE, "Nothing was written to it. Name another file with --db.")),
    (errors.ForeignDatabase, Advice(FILE, "Nothing was written to it. Name another file with --db.")),
    (errors.NewerSchema, Advice(FILE, "Nothing was written to it. Update dq: `pip install -U dq-durable`.")),
    (errors.DiskFull, Advice(FILE, "Nothing acknowledged is lost. Make room, then run the same command again.")),
    (errors.StoreError, Advice(FILE, _NO_HELP)),
    (errors.RunBlocked, Advice(BLOCKED, "Its steps are kept. `dq show ID --db {db}` shows them.")),
    (errors.RunConflict, Advice(USAGE, "Choose another --id, or look at the run with `dq show ID --db {db}`.")),
    (errors.NoSuchRun, Advice(USAGE, "`dq ls --db {db}` lists the runs.")),
    (errors.BadRunId, Advice(USAGE, _NO_HELP)),
    (errors.BadExecutor, Advice(USAGE, "`dq executors` lists what is installed.")),
    (errors.GuardMissing, Advice(USAGE, _NO_HELP)),
    (errors.NotPicklable, Advice(USAGE, _NO_HELP)),
    (errors.NotImportable, Advice(USAGE, _NO_HELP)),
    (errors.SupervisorLost, Advice(FAILED, "What was acknowledged is kept. Run the same command again to go on.")),
    (errors.DqError, Advice(FAILED, _NO_HELP)),
]


def advise(error: BaseException) -> Advice:
    """How a command ends on an error of dq.

    >>> advise(errors.DatabaseInUse("")).code
    75
    """
    return next((advice for kind, advice in _TABLE if isinstance(error, kind)), Advice(FAILED, _NO_HELP))
