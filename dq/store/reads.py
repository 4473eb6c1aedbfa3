"""What the supervisor asks the file: mostly at its start, and when a client comes back."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apsw

from dq.errors import StoreError
from dq.model.states import STATUS
from dq.store import faults
from dq.store.group import AttemptRow, BeginRow, ContextRow, FunctionRow, QueueRow, ScheduleRow, SignalRow, TermRow
from dq.store.sql import SQL

_PAGE = 1000  # rows; no cursor stays open between pages, since that would keep the log from being reset
_STATUS: dict[str | None, int] = {None: -1, **{str(state): number for number, state in enumerate(STATUS)}}


class RunRecord(NamedTuple):
    """A run as the file has it. Times are microseconds UTC."""

    id: int
    name: str
    function: int
    args: bytes
    fingerprint: bytes
    state: str
    created_at: int
    ended_at: int | None
    payload: bytes | None
    reason: str | None
    parent: int | None
    deadline: int | None
    cancel_seq: int | None
    cancel_at: int | None
    cancel_cause: str | None
    cancel_key: int | None
    checkpoint: int | None
    scheduled_at: int | None
    forked_from: int | None
    origin: str | None
    condemned: str | None


class BadStep(NamedTuple):
    """A step that has ended without having completed."""

    id: int
    function: int
    seq: int
    state: str
    payload: bytes
    at: int  # microseconds UTC


class WaitRecord(NamedTuple):
    """An open step that the supervisor itself ends."""

    step: int
    run: int
    function: int
    due_at: int | None
    topic: str | None


class OpenTerm(NamedTuple):
    """An open step that waits elsewhere than the steps around it, or has a word: then `args` are here."""

    step: int
    function: int
    run: int | None
    due_at: int | None
    priority: int
    key: str
    dedup: str | None
    dedup_until: int | None
    same_as: int | None
    args: bytes


class RunStep(NamedTuple):
    """A recorded step of a run, in the shape of a row of `History`: without a result seq is 0 and status -1."""

    id: int
    function: int
    scope: str
    occurrence: int
    fingerprint: bytes
    args: bytes
    seq: int
    status: int
    payload: bytes
    at: int


class ResultRecord(NamedTuple):
    """How a step ended, in the shape of a row of `Results`: microseconds UTC, nanoseconds in the body."""

    id: int
    status: int
    payload: bytes
    began_at: int
    busy: int


class FailureRecord(NamedTuple):
    """How often a step has failed or taken too long, and when. Times are microseconds UTC, 0: never."""

    step: int
    failures: int
    since: int  # when the first of these attempts began
    failed_at: int
    timed_out_at: int


class ClaimRecord(NamedTuple):
    """An open claim; `steps` are (step, attempt)."""

    epoch: int
    slot: int
    pid: int
    steps: list[tuple[int, int]]


class Reads:
    """The read half of `Store`. Every method raises StoreError or a subclass when the file can't be read."""

    _path: str

    @abstractmethod
    def _connected(self) -> apsw.Connection: ...

    def _rows(self, name: str, *values: int | str) -> list[Any]:
        try:
            return self._connected().execute(SQL[name], values).fetchall()
        except apsw.Error as error:
            raise self._failed(error) from error
        except UnicodeDecodeError as error:
            raise faults.corrupt(self._path, f"a text in it is no UTF-8 ({error.reason})") from error

    def _failed(self, error: apsw.Error) -> StoreError:
        return faults.explain(error, self._path)

    def engine_row(self) -> tuple[int, str, int, int, int, str]:
        """The one row of dq_engine, in the order of `EngineLine`."""
        for row in self._rows("engine"):
            return row  # type: ignore[no-any-return]
        raise faults.corrupt(self._path, "the row of dq_engine is gone")

    def next_id(self) -> int:
        """Ids below this one are given out."""
        return int(self.engine_row()[3])

    def salt(self) -> str:
        """What tells this file from all others."""
        return str(self.engine_row()[5])

    def contexts(self) -> list[ContextRow]:
        return [ContextRow(*row) for row in self._rows("contexts")]

    def functions(self) -> list[FunctionRow]:
        return [FunctionRow(*row) for row in self._rows("functions")]

    def unfinished_runs(self) -> list[RunRecord]:
        """Runs that are running or blocked, oldest first."""
        return [RunRecord(*row) for row in self._rows("unfinished_runs")]

    def find_run(self, name: str) -> RunRecord | None:
        """The run that its caller named so."""
        return next((RunRecord(*row) for row in self._rows("find_run", name)), None)

    def run_by_id(self, id: int) -> RunRecord | None:
        return next((RunRecord(*row) for row in self._rows("run_by_id", id)), None)

    def run_steps(self, run: int) -> Iterator[RunStep]:
        """The recorded steps of a run in the order of their ids. Reads page by page; commits may come between."""
        after = 0
        while rows := self._rows("run_steps", run, after, _PAGE):
            for row in rows:
                yield RunStep._make((*row[:7], _STATUS[row[7]], row[8], row[9]))
            after = rows[-1][0]

    def run_page(self, run: int, after: int, limit: int) -> list[RunStep]:
        """The next recorded steps of a run, in the order of their ids."""
        rows = self._rows("run_steps", run, after, limit)
        return [RunStep._make((*row[:7], _STATUS[row[7]], *row[8:])) for row in rows]

    def checkpoint_at(self, step: int) -> tuple[bytes, int, int]:
        """With what a run goes on from a checkpoint: its arguments, its chapter, its time in microseconds UTC."""
        args, scope, at = self._rows("checkpoint_at", step)[0]
        return args, int(scope.partition(".")[0]) + 1, at

    def fork_size(self, run: int, before: int, until: int, dropped: str) -> tuple[int, int, int]:
        """(steps that a fork copies, the last number of their order of delivery, signals that they have taken)."""
        copied, seq, signals = self._rows("fork_size", run, before, until, dropped)[0]
        return copied, seq, signals

    def last_checkpoint(self, run: int, before: int, until: int) -> int:
        """The last of a run's checkpoints before a step and asked for by a time, 0 where there is none."""
        return int(self._rows("last_checkpoint", run, before, until)[0][0])

    def nth_call(self, run: int, functions: Iterable[int], number: int) -> int | None:
        """The step that is the how-manieth call (from 0) of these functions in a run."""
        found = self._rows("nth_call", run, json.dumps(list(functions)), number)
        return next((int(row[0]) for row in found), None)

    def run_of_step(self, step: int) -> int | None:
        """The run that a step belongs to; None for one submitted alone, and where there is no such step."""
        return next((int(row[0]) for row in self._rows("run_of_step", step)), None)

    def bad_steps(self, run: int) -> list[BadStep]:
        """A run's steps that have failed, died or been cancelled, in the order of their ids."""
        return [BadStep(*row) for row in self._rows("bad_steps", run)]

    def last_good_seq(self, run: int) -> int:
        """The last number in a run's order of delivery that is not of a cancelled step."""
        return int(self._rows("last_good_seq", run)[0][0])

    def undone_steps(self, run: int) -> int:
        """How many compensations of a run are on record."""
        return int(self._rows("undone_steps", run)[0][0])

    def runs_before(self, before: int, states: list[str], limit: int) -> list[tuple[int, str, str, str, int, int, int]]:
        """(id, name, workflow, state, parent or 0, created at, ended at or 0) of runs, the newest first."""
        return self._rows("runs_before", before, json.dumps(states), limit)

    def published_since(self, run: int, after: int, limit: int) -> list[tuple[int, str, bytes, int]]:
        """(step, key, payload, microseconds UTC) of what a run has published after a step, in order."""
        return self._rows("published_since", run, after, limit)

    def last_published(self, run: int, key: str) -> list[tuple[int, str, bytes, int]]:
        """The same of the latest value of a key, if there is one."""
        return self._rows("last_published", run, key)

    def run_progress(self, run: int) -> tuple[int, int]:
        """(steps that ended, steps asked for so far)."""
        done, total = self._rows("run_progress", run)[0]
        return done, total

    def max_seqs(self) -> dict[int, int]:
        """For each unfinished run the last number of its order of delivery, 0 where nothing is delivered yet."""
        return dict(self._rows("max_seqs"))

    def open_waits(self) -> list[WaitRecord]:
        """Open steps of unfinished runs that the supervisor itself ends."""
        return [WaitRecord(*row) for row in self._rows("open_waits")]

    def terms(self, ids: Iterable[int]) -> dict[int, TermRow]:
        """What those of `ids` that have terms wait for."""
        return {row[0]: TermRow(*row) for row in self._rows("terms", json.dumps(list(ids)))}

    def open_terms(self, first: int, last: int) -> list[OpenTerm]:
        """Steps submitted alone within first..last without a result that wait elsewhere than those around them."""
        return [OpenTerm(*row) for row in self._rows("open_terms", first, last)]

    def open_flow_terms(self) -> list[OpenTerm]:
        """The same of unfinished runs."""
        return [OpenTerm(*row) for row in self._rows("open_flow_terms")]

    def find_duplicates(self, dedup: str, now: int) -> list[tuple[int, int, int, int, int]]:
        """(step, function, until or 0, whether it has ended, due at or 0) of those that another step with this word may be the same as."""
        return self._rows("find_duplicates", dedup, now)

    def queues(self) -> list[QueueRow]:
        return [QueueRow(*row) for row in self._rows("queues")]

    def begins(self) -> list[BeginRow]:
        """What queues with a rate have let through, oldest first."""
        return [BeginRow(*row) for row in self._rows("begins")]

    def oldest(self, ids: Iterable[int]) -> int:
        """When the oldest of these steps was asked for; microseconds UTC, 0 where there is none."""
        return int(self._rows("oldest_step", json.dumps(list(ids)))[0][0])

    def open_signals(self) -> list[SignalRow]:
        """Signals of unfinished runs that no wait has taken, in the order in which they came."""
        return [SignalRow(*row) for row in self._rows("open_signals")]

    def last_signal(self) -> int:
        return int(self._rows("last_signal")[0][0])

    def has_signal(self, key: int) -> bool:
        """Whether a signal that its sender knows under this id is in the file."""
        return bool(self._rows("find_signal", key))

    def progress(self) -> dict[int, bytes]:
        """The cursors of all open steps that have one."""
        return dict(self._rows("progress"))

    def schedules(self) -> list[ScheduleRow]:
        return [ScheduleRow(*row) for row in self._rows("schedules")]

    def open_batches(self) -> list[tuple[int, int]]:
        """(first id, last id) of the ranges submitted alone that have a step without result."""
        return self._rows("open_batches")

    def open_steps(
        self, first: int, last: int, after: int | None = None, limit: int = _PAGE
    ) -> list[tuple[int, int, bytes]]:
        """(id, function, args) of steps submitted alone, within first..last and past `after`, without a result."""
        return self._rows("open_steps", first - 1 if after is None else max(after, first - 1), last, limit)

    def open_functions(self, first: int, last: int) -> list[tuple[int, int, int, int]]:
        """(function, first id, last id, count) of the steps submitted alone within first..last without a result."""
        return self._rows("open_functions", first, last)

    def open_flow_steps(
        self, run: int, function: int, after: int, last: int, limit: int = _PAGE
    ) -> list[tuple[int, int, bytes]]:
        """(id, function, args) of a run's steps of one function, past `after` up to `last`, without a result."""
        return self._rows("open_flow_steps", run, function, after, last, limit)

    def open_flow_functions(self) -> list[tuple[int, int, int, int, int]]:
        """(run, function, first id, last id, count) of the unfinished runs' steps that have no result."""
        return self._rows("open_flow_functions")

    def open_ids(self, run: int) -> list[int]:
        """A run's steps that have no result."""
        return [row[0] for row in self._rows("open_ids", run)]

    def step_function(self, step: int) -> int:
        """The function of a step. Raises LookupError where there is no such step."""
        for (function,) in self._rows("step_function", step):
            return int(function)
        raise LookupError(f"there is no step {step} in {self._path}")

    def next_seq(self, step: int) -> int | None:
        """The number that follows the last one in the step's run; None for a step submitted alone."""
        return next((int(row[0]) for row in self._rows("next_seq", step)), None)

    def known_steps(self, ids: Iterable[int]) -> set[int]:
        """Those of `ids` that are steps in the file."""
        return {row[0] for row in self._rows("known_steps", json.dumps(list(ids)))}

    def results(self, ids: Iterable[int]) -> list[ResultRecord]:
        """The results of those of `ids` that have one, in the order of their ids."""
        rows = self._rows("results", json.dumps(list(ids)))
        return [ResultRecord._make((row[0], _STATUS[row[1]], *row[2:])) for row in rows]

    def open_claims(self) -> list[ClaimRecord]:
        rows = self._rows("open_claims")
        return [
            ClaimRecord(epoch, slot, pid, [(step, attempt) for step, attempt in json.loads(steps)])
            for epoch, slot, pid, steps in rows
        ]

    def attempts(self, ids: Iterable[int]) -> dict[int, tuple[int, int]]:
        """For each id (number of the last attempt that did not complete the step or 0, crashes charged)."""
        found: dict[int, tuple[int, int]] = dict.fromkeys(ids, (0, 0))
        found.update((step, (last, charged)) for step, last, charged in self._rows("attempts", json.dumps(list(found))))
        return found

    def failures(self, ids: Iterable[int]) -> list[FailureRecord]:
        """What is known of attempts of these steps that failed or took too long; only of steps that have such."""
        return [FailureRecord(*row) for row in self._rows("failures", json.dumps(list(ids)))]

    def attempt_causes(self, step: int) -> list[AttemptRow]:
        """The evidence: attempts that did not complete the step, oldest first."""
        return [AttemptRow(*row) for row in self._rows("attempt_causes", step)]
