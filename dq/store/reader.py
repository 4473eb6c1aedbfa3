"""Looks into the file without changing it, whether a supervisor is at work or not: for people and their commands."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import apsw

from dq.errors import ForeignDatabase, ReadFailed, StoreError
from dq.store import connection, faults, guard, migrate, place
from dq.store.archive import Archive
from dq.store.sql import SQL

BUSY_MS = 2000
LAST_ID = (1 << 63) - 1


class RunLine(NamedTuple):
    """A row of the view dq_runs. Times are microseconds UTC."""

    id: int
    name: str
    workflow: str | None
    state: str
    steps: int
    done: int
    created_at: int
    ended_at: int | None
    reason: str | None


class StepLine(NamedTuple):
    """A row of the view dq_steps. Times are microseconds UTC; `run` is None for a step submitted alone."""

    id: int
    name: str | None
    run: str | None
    state: str
    attempt: int
    pid: int | None
    epoch: int | None
    created_at: int
    claimed_at: int | None
    began_at: int | None
    ended_at: int | None


class AttemptLine(NamedTuple):
    """A row of the view dq_attempts. `outcome` is None while the attempt goes on."""

    step: int
    attempt: int
    epoch: int
    outcome: str | None
    pid: int
    charged: int
    cause: str | None
    began_at: int | None
    ended_at: int | None


class EngineLine(NamedTuple):
    """Who wrote last. `clean` is 0 while a supervisor is at work, and after one was killed."""

    boot_epoch: int
    boot_id: str
    clean: int
    next_id: int
    created_at: int
    salt: str  # tells this file from all others


class ScheduleLine(NamedTuple):
    """A schedule. Times are microseconds UTC; `next_at` counts only while it is not paused."""

    id: str
    workflow: str | None
    expression: str
    tz: str
    catch_up: str
    overlap: str
    paused: int
    next_at: int
    last_at: int | None
    last_run: str | None
    waiting_at: int | None
    skipped: int
    created_at: int


class StepCounts(NamedTuple):
    steps: int
    done: int
    claimed: int


class Reader:
    """A read-only view of the file. Each call fetches all of its rows, so nothing keeps the log from being reset.

    An error inside the block that nobody has foreseen, over a file whose pages are damaged, is CorruptDatabase.

    Example:
        with Reader.open("movie.db") as reader:
            for run in reader.runs():
                print(run.name, run.state, f"{run.done}/{run.steps}")
    """

    def __init__(self, opened: apsw.Connection, path: str, copy: str | None) -> None:
        self._opened = opened
        self._path = path
        self._copy = copy

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Reader:
        """Opens the file, also where it and its folder are read-only.

        Raises NoSuchFolder, UnsafePlace, NotADatabase, ForeignDatabase, NewerSchema, CorruptDatabase, or StoreError
        where there is no such file.
        """
        file = connection.absolute(path)
        place.check_folder(file)
        if not place.check_file(file):
            raise StoreError(f"there is no database {file}. Check the path, or start a workflow to make one.")
        with faults.explained(file):
            try:
                return cls(_opened(file, "mode=ro"), file, None)
            except (apsw.CantOpenError, apsw.ReadOnlyError):
                return cls._open_without_shared_memory(file)

    @classmethod
    def open_copy(cls, path: str) -> Reader:
        """Opens a copy that nobody writes, and leaves no file beside it. Raises StoreError and its subclasses."""
        with faults.explained(path):
            return cls(_opened(path, "mode=ro&immutable=1"), path, None)

    @classmethod
    def _open_without_shared_memory(cls, file: str) -> Reader:
        # In a folder that can't be written SQLite can't make its -shm. Without a log the file alone says all; with one,
        # both are copied to where it can.
        if not os.path.exists(f"{file}-wal") or not os.path.getsize(f"{file}-wal"):
            return cls(_opened(file, "mode=ro&immutable=1"), file, None)
        copy = tempfile.mkdtemp(prefix="dq-read-")
        try:
            target = os.path.join(copy, "copy.db")
            shutil.copyfile(file, target)
            shutil.copyfile(f"{file}-wal", f"{target}-wal")
            return cls(_opened(target, "mode=ro"), file, copy)
        except BaseException:
            shutil.rmtree(copy, ignore_errors=True)
            raise

    def archive(self) -> Archive:
        """The record in the words of the supervisor; of use as long as this is open."""
        return Archive(self._opened, self._path)

    def close(self) -> None:
        """Closes the view; a second call does nothing."""
        self._opened.close()
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            connection.suspect(self._opened, self._path, error)
        finally:
            self.close()

    def page_size(self) -> int:
        """Bytes."""
        return int(str(self._opened.pragma("page_size")))

    def findings(self, limit: int = 10) -> list[str]:
        """What is damaged, at most so many findings; none for a file that is whole. Reads all of it."""
        with faults.explained(self._path):
            found = [str(row[0]) for row in self._opened.execute(f"PRAGMA integrity_check({int(limit)})")]
        return [] if found == ["ok"] else found

    def engine(self) -> EngineLine:
        return EngineLine._make(self.archive().engine_row())

    def runs(self, *, all: bool = True, before: int = LAST_ID, limit: int = 1000) -> list[RunLine]:
        """Runs, newest first: those with an id below `before`; only the unfinished ones where `all` is false."""
        return [RunLine._make(row) for row in self._rows("list_runs", before, int(all), limit)]

    def run(self, name: str) -> RunLine | None:
        return next((RunLine._make(row) for row in self._rows("show_run", name)), None)

    def run_payloads(self, name: str) -> tuple[bytes, bytes | None] | None:
        """(arguments, result or failure) of a run as they were recorded."""
        return next(iter(self._rows("run_record", name)), None)

    def steps(self, run: int, *, after: int = 0, limit: int = 1000) -> list[StepLine]:
        """The steps of a run (its number, `RunLine.id`), in the order in which they were asked for."""
        return [StepLine._make(row) for row in self._rows("list_run_steps", run, after, limit)]

    def open_steps(self, *, limit: int = 1000) -> list[StepLine]:
        """Steps submitted alone that have not ended yet."""
        lines: list[StepLine] = []
        for first, last in self._rows("open_batches"):
            if len(lines) >= limit:
                break
            lines += [StepLine._make(row) for row in self._rows("list_open_steps", first - 1, last, limit - len(lines))]
        return lines

    def step(self, id: int) -> StepLine | None:
        return next((StepLine._make(row) for row in self._rows("show_step", id)), None)

    def step_result(self, id: int) -> tuple[str, bytes] | None:
        """(state, payload) of a step that has ended."""
        return next(((row[1], row[2]) for row in self._rows("results", f"[{int(id)}]")), None)

    def attempts(self, step: int) -> list[AttemptLine]:
        return [AttemptLine._make(row) for row in self._rows("list_attempts", step)]

    def schedules(self) -> list[ScheduleLine]:
        """All schedules, by id."""
        return [ScheduleLine._make(row) for row in self._rows("list_schedules")]

    def query(self, sql: str, params: guard.Params = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement of a user's. Raises ReadFailed where it can't be answered."""
        self._opened.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
        try:
            return list(guard.rows(self._opened, sql, params))
        except guard.DISK as error:
            if isinstance(error, apsw.ReadOnlyError):
                raise ReadFailed(f"{guard.shorten(sql)!r}: the file is opened for reading only.") from error
            raise faults.explain(error, self._path) from error
        except guard.REFUSALS as error:
            raise ReadFailed(f"{guard.shorten(sql)!r}: {guard.reason(error)}.") from error

    def run_counts(self) -> dict[str, int]:
        """How many runs there are in each state."""
        return dict(self._rows("count_runs"))

    def step_counts(self) -> StepCounts:
        """How many steps there are, how many have ended, how many are listed in open claims."""
        return StepCounts._make(self._rows("count_steps")[0])

    def _rows(self, name: str, *values: int | str) -> list[Any]:
        with faults.explained(self._path):
            return self._opened.execute(SQL[name], values).fetchall()


def _opened(file: str, options: str) -> apsw.Connection:
    opened = apsw.Connection(f"file:{quote(file)}?{options}", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        opened.set_busy_timeout(BUSY_MS)
        connection.guard(opened)
        if not migrate.check(opened, file):
            raise ForeignDatabase(f"{file} is an empty SQLite database: dq has not written to it yet.")
        migrate.require_current(opened, file)
    except BaseException:
        with contextlib.suppress(apsw.Error):
            opened.close()
        raise
    return opened
