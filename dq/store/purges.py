"""Takes out of the file what nobody wants any more: beside the groups, in small transactions of their own.

A group knows exactly how many rows it changes. Here nobody does, so each transaction is fenced by itself and deletes as
many as the time that it is given allows. A run's own row goes first: what a kill leaves behind are steps without a run,
which the next walk through the steps finds, and never a run that has lost some of its steps.
"""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apsw

from dq.store.references import RUNS, SIGNALS, STEPS, pages
from dq.store.sql import SQL
from dq.store.surveys import Surveys
from dq.store.transaction import transaction


class Kind(NamedTuple):
    """A kind of rows: what names side files in them, and what deletes one with all that goes with it."""

    files: str
    deletions: tuple[str, ...]


# Child runs share their id with the step of the parent that called them, so some of the statements look whether the other one
# is still there.
RUN = Kind("files_of_runs", ("purge_run", "purge_stray_result", "purge_attempts", "purge_letter"))
STEP = Kind(
    "files_of_steps",
    ("purge_step", "purge_result", "purge_term", "purge_attempts", "purge_letter", "delete_progress"),
)
SIGNAL = Kind("files_of_signals", ("purge_signal",))


class Age(NamedTuple):
    """What is old enough to go. Times are microseconds UTC."""

    before: int  # it ended earlier than this
    keep_failed: bool
    now: int


class Purges(Surveys):
    """The half of `Store` that deletes."""

    _epoch: int

    @abstractmethod
    def _fenced(self, why: str) -> Exception: ...

    @abstractmethod
    def _look_at_log(self) -> None: ...

    def old_runs(self, age: Age) -> Iterator[list[tuple[int, int]]]:
        """(id, id of its parent or 0) of runs that ended so long ago, in pages; some pages are empty."""
        for after, last in pages(self._rows, RUNS):
            yield self._rows("old_runs", after, last, age.before, int(age.keep_failed))

    def old_steps(self, age: Age) -> Iterator[list[int]]:
        """Steps submitted alone that ended so long ago, and steps whose run is gone, in pages; some pages are empty."""
        for after, last in pages(self._rows, STEPS):
            rows = self._rows("old_steps", after, last, age.before, int(age.keep_failed), age.now)
            yield [row[0] for row in rows]

    def stray_signals(self) -> Iterator[list[int]]:
        """Signals whose run is gone, in pages; some pages are empty."""
        for after, last in pages(self._rows, SIGNALS):
            yield [row[0] for row in self._rows("stray_signals", after, last)]

    def parent(self, run: int) -> int:
        """The run that called this one; 0 where there is none, or it is gone."""
        return next((row[0] or 0 for row in self._rows("run_parent", run)), 0)

    def count_steps(self, run: int) -> int:
        """How many steps a run has asked for."""
        return int(self._rows("run_progress", run)[0][1])

    def files_of(self, kind: Kind, ids: Sequence[int]) -> list[bytes]:
        """Payloads of these rows that name a side file."""
        return [row[0] for row in self._rows(kind.files, json.dumps(list(ids)))]

    def purge(self, kind: Kind, ids: Sequence[int], seconds: float) -> int:
        """Deletes the rows of `ids`, in order, until the time is up; returns for how many, at least for one.

        Visible when it returns; durable after the next `sync`, and no side file may be unlinked before.

        Raises:
            Fenced: Another supervisor has taken the file over.
            DiskFull: Nothing is deleted: there is no room for the log.
            StoreError: The disk failed.
        """
        db, done, deadline = self._connected(), 0, time.monotonic() + seconds
        deletions = [SQL[name] for name in kind.deletions]
        try:
            with transaction(db):
                if db.execute(SQL["fence"], (self._epoch,)).get is None:
                    raise self._fenced("another supervisor has taken the file over")
                for id in ids:
                    for deletion in deletions:
                        db.execute(deletion, (id,))
                    done += 1
                    if time.monotonic() > deadline:
                        break
        except apsw.Error as error:
            raise self._failed(error) from error
        self._look_at_log()
        return done

    def compact(self) -> None:
        """Rewrites the file without free pages. Nobody else may have it open for writing. Raises DiskFull, StoreError."""
        db = self._connected()
        try:
            db.pragma("temp_store", "file")  # all of it passes through there, and may be larger than the memory
            db.execute("VACUUM")
        except apsw.Error as error:
            raise self._failed(error) from error
