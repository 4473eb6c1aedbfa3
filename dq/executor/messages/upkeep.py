"""Between clients and the supervisor: dead letters and retention."""

# msgspec hands `frozen` down to subclasses, and pyright wants it repeated in each of them.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import typing

import msgspec

from dq.executor.messages.base import Message


class Release(Message, frozen=True, tag=39):
    """Lets a step begin now that waits for its time, or for somebody to say so. Answered by Done or Refused."""

    ticket: int
    step: int


class Sweep(Message, frozen=True, tag=90):
    """Asks to take out of the file what ended longer ago than `older_than` microseconds. Answered by Swept or Refused."""

    ticket: int
    older_than: typing.Annotated[int, msgspec.Meta(ge=0)]
    keep_failed: bool
    dry_run: bool


class Swept(Message, frozen=True, tag=91):
    """What was taken out, or would be; `size` is that of the side files, in bytes."""

    ticket: int
    runs: int
    steps: int
    signals: int
    files: int
    size: int
    held: bool  # somebody makes a copy of the file, so that side files stay for the next time


class ListDead(Message, frozen=True, tag=92):
    """Asks for what ended badly, the latest `limit`; `all`: also what somebody has dealt with. Answered by Dead."""

    ticket: int
    all: bool
    limit: int


class Letter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A step that is dead, a step submitted alone that failed, a run that failed. Times are microseconds UTC."""

    id: int
    run: str  # the run's name, "" for a step submitted alone
    function: str
    ended: str  # "dead" or "failed"
    state: str  # "open", "retried" or "discarded"
    successor: int | None  # the step or run that tries again
    attempt: int  # 0 for a run
    pid: int
    created_at: int
    ended_at: int
    payload: bytes  # the failure


class Dead(Message, frozen=True, tag=93):
    """Dead letters, the latest first."""

    ticket: int
    letters: list[Letter]


class RetryStep(Message, frozen=True, tag=94):
    """Asks for a new step, `id`, that does what an old one that was submitted alone has not achieved.

    Answered by Done or Refused; its result comes as if it had been submitted.
    """

    ticket: int
    id: int
    step: int


class Discard(Message, frozen=True, tag=95):
    """Marks a dead letter as dealt with: the run of a name, or a step. Answered by Done or Refused."""

    ticket: int
    run: str
    step: int


OfUpkeep = (
    Release | Sweep | Swept | ListDead | Dead | RetryStep | Discard
)  # fmt: skip

__all__ = [
    "Dead", "Discard", "Letter", "ListDead", "OfUpkeep", "Release", "RetryStep", "Sweep", "Swept",
]  # fmt: skip
