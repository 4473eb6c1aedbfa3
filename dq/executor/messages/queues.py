"""Between clients and the supervisor: queues and schedules."""

# msgspec hands `frozen` down to subclasses, and pyright wants it repeated in each of them.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import msgspec

from dq.executor.messages.base import Int, Message


class Plan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A schedule as the file has it. Times are microseconds UTC; 0: none."""

    id: str
    workflow: str
    expression: str
    tz: str
    catch_up: str
    overlap: str
    paused: bool
    next_at: int
    last_at: int
    last_run: str
    waiting_at: int
    skipped: int
    created_at: int


class SetQueue(Message, frozen=True, tag=70):
    """Changes a queue; it may come twice. Answered by Done, or Refused."""

    ticket: int
    name: str
    paused: int  # 1 or 0; -1: as it is
    limits: tuple[Int, Int, Int, Int]  # (concurrency, per worker, begins, within microseconds); 0: none; -1: as it is
    default: bool = False  # whether the limits are again what the code says


class QueueState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a queue stands."""

    name: str
    waiting: int
    running: int
    paused: bool
    by_hand: bool  # whether its limits were set by hand
    limits: tuple[int, int, int, int]  # (concurrency, per worker, begins, within microseconds); 0: none
    oldest_at: int  # when the oldest that waits was asked for; microseconds UTC, 0 where nothing waits


class ListQueues(Message, frozen=True, tag=71):
    """Asks how queues stand: the one of a name, or with "" all of them. Answered by QueueStates."""

    ticket: int
    name: str


class QueueStates(Message, frozen=True, tag=72):
    ticket: int
    rows: list[QueueState]


class Book(Message, frozen=True, tag=80):
    """Puts a schedule on record, or changes the one of that id. Answered by Plans, which has it, or Refused."""

    ticket: int
    id: str
    function: int
    args: bytes
    fingerprint: bytes
    expression: str
    tz: str
    catch_up: str
    overlap: str


class ListPlans(Message, frozen=True, tag=81):
    """Asks for all schedules."""

    ticket: int


class Plans(Message, frozen=True, tag=82):
    ticket: int
    rows: list[Plan]


class Replan(Message, frozen=True, tag=83):
    """Pauses, resumes or deletes a schedule: `what` says which. Answered by Done or Refused."""

    ticket: int
    id: str
    what: str


class Trigger(Message, frozen=True, tag=84):
    """Starts a run of a schedule now. Answered by Done, whose text is the run's name, or Refused.

    `run` is the id that the run gets, so that a message which comes again after a reconnect starts no second one.
    """

    ticket: int
    run: int
    id: str


OfQueues = (
    SetQueue | ListQueues | QueueStates | Book | ListPlans | Plans | Replan | Trigger
)  # fmt: skip

__all__ = [
    "Book", "ListPlans", "ListQueues", "OfQueues", "Plan", "Plans", "QueueState", "QueueStates", "Replan",
    "SetQueue", "Trigger",
]  # fmt: skip
