"""What one transaction writes: rows that the supervisor has decided on and `Store.commit` puts down, all or none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class ContextRow(NamedTuple):
    id: int
    python: str
    script: str
    cwd: str
    path: str  # JSON array of sys.path


class FunctionRow(NamedTuple):
    id: int
    context: int
    name: str
    kind: str
    digest: bytes
    code: bytes | None
    executor: str
    max_crashes: int
    created_at: int
    options: bytes | None = None


class RunRow(NamedTuple):
    id: int
    name: str
    function: int
    args: bytes
    fingerprint: bytes
    created_at: int
    parent: int | None = None
    deadline: int | None = None  # microseconds UTC
    scheduled_at: int | None = None  # the same: the time of its schedule


class TermRow(NamedTuple):
    """What a step waits for besides a worker. A second row of a step changes its due time and its priority."""

    step: int
    due_at: int | None  # microseconds UTC
    priority: int = 0
    key: str = ""
    dedup: str | None = None
    dedup_until: int | None = None
    topic: str | None = None
    same_as: int | None = None  # the step whose result is this one's


class SignalRow(NamedTuple):
    id: int
    key: int
    run: int
    name: str
    payload: bytes
    sent_at: int
    step: int | None = None  # the wait that takes it


class ScheduleRow(NamedTuple):
    """Runs of a workflow, started at times. All times are microseconds UTC."""

    id: str
    function: int
    args: bytes
    fingerprint: bytes
    expression: str
    tz: str
    catch_up: str
    overlap: str
    paused: int
    next_at: int
    last_at: int | None
    last_run: str | None  # the name of the run that was started last
    waiting_at: int | None  # the time whose run waits for the end of that one
    skipped: int
    created_at: int


class ScheduleMove(NamedTuple):
    """What changes in a schedule as time goes by."""

    paused: int
    next_at: int
    last_at: int | None
    last_run: str | None
    waiting_at: int | None
    skipped: int
    id: str


class QueueRow(NamedTuple):
    """What a queue is set to; 0 stands for no limit."""

    name: str
    concurrency: int
    per_worker: int
    rate_count: int
    rate_period: int  # microseconds
    paused: int
    overridden: int  # whether the limits were set by hand


class BeginRow(NamedTuple):
    """A step that a queue with a rate has let through."""

    queue: str
    key: str
    step: int
    attempt: int
    at: int  # microseconds UTC


class RunChange(NamedTuple):
    """A compare-and-set of a run's state."""

    state: str
    ended_at: int | None
    payload: bytes | None  # result or failure
    reason: str | None  # why it is blocked
    id: int
    expected: str


class ForkRow(NamedTuple):
    """What a new run, of the same group, takes over of another one's record."""

    run: int
    first: int  # the id of the first copied step; the others follow it
    original: int
    before: int  # steps with lower ids only
    until: int  # that were asked for by then; microseconds UTC
    dropped: str  # a JSON array of steps that are left out
    first_signal: int
    origin: str
    checkpoint: int | None
    copied: int  # how many steps that must be


class AttemptRow(NamedTuple):
    """An attempt that did not complete its step. `charged` says whether it counts against `max_crashes`."""

    step: int
    attempt: int
    epoch: int
    outcome: str
    pid: int
    charged: int
    cause: str
    ended_at: int
    began_at: int | None = None  # where the body itself has failed, or has taken too long


class LetterRow(NamedTuple):
    """A step or a run that ended badly, and how somebody has dealt with it."""

    id: int
    state: str  # "retried" or "discarded"
    successor: int | None  # the step or the run that tries again
    at: int


@dataclass(slots=True)
class Group:
    """Rows in the order of the columns; the lists of plain tuples are the hot path.

    steps        (id, function, args, created_at)                       submitted alone
    flow_steps   (id, run, function, scope, occurrence, fingerprint, args, created_at)
    claims       (epoch, slot, pid, "[[id, attempt], ...]" as JSON, claimed_at)
    trimmed_claims   ("[[id, attempt], ...]" that are left, epoch): a member gave the others back unbegun
    results      (step, seq, state, attempt, epoch, pid, began_at, ended_at, payload)   seq NULL when submitted alone
    checkpoints  (step, run)
    condemned    (why, run): it ends without another word of its code
    cancels      (seq, at, cause, key, run): a cancel's place in the run's order of delivery
    dues         (step, due_at): when a step may begin at last
    same_as      (first or NULL, step): a step that gets the result of another one, or does so no more
    queues, begins, ended_begins     limits and pauses; what began within the time that a rate looks back
    taken_signals    (wait, signal)
    progress     (step, cursor)
    closed_progress  (step,)
    batches      (first, last): consecutive ids submitted alone, kept while one of them has no result
    """

    contexts: list[ContextRow] = field(default_factory=list)
    functions: list[FunctionRow] = field(default_factory=list)
    lease_to: int = 0  # ids below this one are given out
    runs: list[RunRow] = field(default_factory=list)
    forks: list[ForkRow] = field(default_factory=list)
    run_changes: list[RunChange] = field(default_factory=list)
    checkpoints: list[tuple[int, int]] = field(default_factory=list)
    condemned: list[tuple[str, int]] = field(default_factory=list)
    cancels: list[tuple[int, int, str, int, int]] = field(default_factory=list)
    terms: list[TermRow] = field(default_factory=list)
    dues: list[tuple[int, int]] = field(default_factory=list)
    same_as: list[tuple[int | None, int]] = field(default_factory=list)
    queues: list[QueueRow] = field(default_factory=list)
    begins: list[BeginRow] = field(default_factory=list)
    ended_begins: list[tuple[str, str, int, int]] = field(default_factory=list)
    signals: list[SignalRow] = field(default_factory=list)
    taken_signals: list[tuple[int, int]] = field(default_factory=list)
    progress: list[tuple[int, bytes]] = field(default_factory=list)
    closed_progress: list[tuple[int]] = field(default_factory=list)
    schedules: list[ScheduleRow] = field(default_factory=list)
    schedule_moves: list[ScheduleMove] = field(default_factory=list)
    closed_schedules: list[tuple[str]] = field(default_factory=list)
    batches: list[tuple[int, int]] = field(default_factory=list)
    closed_batches: list[tuple[int]] = field(default_factory=list)
    steps: list[tuple[int, int, bytes, int]] = field(default_factory=list)
    flow_steps: list[tuple[int, int, int, str, int, bytes, bytes, int]] = field(default_factory=list)
    claims: list[tuple[int, int, int, str, int]] = field(default_factory=list)
    trimmed_claims: list[tuple[str, int]] = field(default_factory=list)
    closed_claims: list[tuple[int]] = field(default_factory=list)
    results: list[tuple[int, int | None, str, int, int, int, int, int, bytes]] = field(default_factory=list)
    attempts: list[AttemptRow] = field(default_factory=list)
    letters: list[LetterRow] = field(default_factory=list)
