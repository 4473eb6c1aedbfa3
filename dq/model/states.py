"""The life of a run, a step and an attempt: the one place that says which change is legal.

The CHECKs of `schema.sql`, the diagram in `docs/design.md` and the property test are held against it.
"""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands; the last three are final."""

    RUNNING = "running"
    BLOCKED = "blocked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepState(StrEnum):
    """Where a step stands. Only the last four are written; the first two follow from the claims."""

    PENDING = "pending"
    CLAIMED = "claimed"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"


RUN_FINAL = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})
STEP_FINAL = frozenset({StepState.COMPLETED, StepState.FAILED, StepState.CANCELLED, StepState.DEAD})

# state -> the states that may follow it
RUN_TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.RUNNING: frozenset({RunState.BLOCKED, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED}),
    RunState.BLOCKED: frozenset({RunState.RUNNING, RunState.FAILED, RunState.CANCELLED}),
    RunState.COMPLETED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}

STEP_TRANSITIONS: dict[StepState, frozenset[StepState]] = {
    StepState.PENDING: frozenset({StepState.CLAIMED, StepState.CANCELLED}),
    StepState.CLAIMED: frozenset(
        {StepState.PENDING, StepState.COMPLETED, StepState.FAILED, StepState.CANCELLED, StepState.DEAD}
    ),
    StepState.COMPLETED: frozenset(),
    StepState.FAILED: frozenset(),
    StepState.CANCELLED: frozenset(),
    StepState.DEAD: frozenset(),
}

# The number that stands for a final state in a frame, and back.
STATUS: tuple[StepState, ...] = (StepState.COMPLETED, StepState.FAILED, StepState.CANCELLED, StepState.DEAD)
COMPLETED, FAILED, CANCELLED, DEAD = range(4)
# In frames only, and no final state: the attempt failed, and the payload is when the next one may begin (microseconds
# from now, 8 bytes) and the failure.
RETRY = 4
