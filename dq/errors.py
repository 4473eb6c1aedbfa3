"""Every exception that a user of dq may want to catch."""

from __future__ import annotations


class DqError(Exception):
    """The root of all of dq's own errors."""


class StoreError(DqError):
    """The database file can't be used as it is. The message says why and what helps."""


class NoSuchFolder(StoreError):
    """The folder that should hold the database does not exist."""


class ReadOnlyFile(StoreError):
    """The database, its folder or its file system can't be written."""


class DiskFull(StoreError):
    """The disk has no room left for the database."""


class NotADatabase(StoreError):
    """The file exists and is not an SQLite database."""


class ForeignDatabase(StoreError):
    """The file is an SQLite database of another application."""


class NewerSchema(StoreError):
    """The file was written by a later version of dq."""


class CorruptDatabase(StoreError):
    """A page of the file is damaged."""


class UnsafePlace(StoreError):
    """The file lies where SQLite's locks can't be trusted: a network file system, a second hard link."""


class DatabaseInUse(StoreError):
    """Another supervisor works on the file; `pid` names it."""

    def __init__(self, message: str, pid: int = 0) -> None:
        super().__init__(message)
        self.pid = pid


class Fenced(StoreError):
    """A write found the file in a state that only another supervisor can have made."""


class BadRunId(DqError, ValueError):
    """A run id that is empty, too long, or holds control characters."""


class BadName(DqError, ValueError):
    """The name of a signal, a step or a published value that is empty, too long, or holds control characters."""


class RunConflict(DqError):
    """The run id is taken by another workflow or other arguments; the message shows both."""


class NoSuchRun(DqError, LookupError):
    """There is no run of that id in the file."""


class NoSuchStep(DqError, LookupError):
    """There is no step of that id in the file."""


class BadSchedule(DqError, ValueError):
    """A schedule whose times, time zone or options make no sense; the message says what is wrong."""


class ScheduleConflict(DqError):
    """The schedule's id is another workflow's; the message says whose."""


class NoSuchSchedule(DqError, LookupError):
    """There is no schedule of that id in the file."""


class NoSuchLetter(DqError, LookupError):
    """There is no such dead letter, or it can't be retried by itself; the message says what can be done."""


class NotPicklable(DqError, TypeError):
    """An argument or a result can't be pickled; the message names the path to the culprit."""


class NotImportable(DqError, ImportError):
    """A function that was recorded by name can't be imported where it should run."""


class BadExecutor(DqError, ValueError):
    """No executor of that name or spec, or it failed to load; the message says why."""


class GuardMissing(DqError, RuntimeError):
    """The script starts an engine while dq imports it; `if __name__ == "__main__":` is missing."""


class DamagedPayload(DqError):
    """Recorded bytes do not match their checksum, or their side file is gone."""


class SignatureMismatch(DamagedPayload):
    """Recorded bytes carry no signature of the key that is in use, or one where no key is. They were not unpickled."""


class StepError(DqError):
    """A step failed with an exception that can't travel; here are its type, text and traceback."""

    def __init__(self, type_name: str, text: str, traceback: str = "") -> None:
        super().__init__(type_name, text, traceback)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}"


class StepCrashed(DqError):
    """A step killed its worker `max_crashes` times and is quarantined; the message is the evidence."""


class RunBlocked(DqError):
    """The recorded history does not fit the code on disk; the message shows the difference."""


class Cancelled(DqError):
    """The run or the step was cancelled."""


class RunTimeout(Cancelled, TimeoutError):
    """The run has not ended within the `timeout` of its workflow."""


class StepTimeout(DqError, TimeoutError):
    """An attempt took longer than the step's `timeout`, and its process was killed."""


class MemoryExceeded(DqError, MemoryError):
    """An attempt wanted more memory than the step's limit."""


class EffectFailed(DqError):
    """A statement of `dq.write` or `engine.execute` can't be done, so nothing of its attempt was written.

    Attributes:
        statement: Its text, shortened.
        expected: How many rows it should have changed; None where that was not said.
        changed: How many it has changed; None where it did not come to that.
    """

    def __init__(
        self, message: str, statement: str = "", expected: int | None = None, changed: int | None = None
    ) -> None:
        super().__init__(message)
        self.statement = statement
        self.expected = expected
        self.changed = changed


class ReadFailed(DqError):
    """A statement of `dq.read` or `engine.read` can't be answered; the message shows it and says why."""


class SignalTimeout(DqError, TimeoutError):
    """No signal of that name came in time."""


class RunEnded(DqError):
    """The run has ended, so that it can't be signalled, cancelled or resumed."""


class BadFork(DqError, ValueError):
    """A fork or a retry that can't be: there is no such step, or the run has not failed; the message says which."""


class SupervisorLost(DqError, ConnectionError):
    """No supervisor could be reached or started; the message holds its last words."""
