"""Between the supervisor and hosts."""

# msgspec hands `frozen` down to subclasses, and pyright wants it repeated in each of them.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import typing

import msgspec

from dq.executor.messages.base import Int, Message, Term


class Assign(Message, frozen=True, tag=60):
    """A run is this host's now. Its history follows in History frames; the last one says so."""

    run: int
    name: str
    function: int
    args: bytes
    created_at: int  # microseconds UTC
    cancel: tuple[int, int, str] | None = None  # (seq, at, cause)
    chapter: int = 0  # how many checkpoints are behind it
    scheduled_at: int = 0  # microseconds UTC: the time of its schedule; 0: none
    origin: str = ""  # "ID NAME" of the run whose random numbers it draws, being a fork of it
    above: int = 0  # ids of its further steps are higher than this one


class History(Message, frozen=True, tag=61):
    """Recorded steps of a run: (id, function, scope, occurrence, fingerprint, args, seq, status, payload, at).

    A step without a result has seq 0 and status -1. `at` is when it ended, in microseconds UTC.
    """

    run: int
    rows: list[tuple[int, int, str, int, bytes, bytes, int, int, bytes, int]]
    last: bool


class More(Message, frozen=True, tag=68):
    """A host has used up what it has of a run's history, and wants the next part."""

    run: int


class Steps(Message, frozen=True, tag=62):
    """A host's runs ask for steps: (id, run, function number, scope, occurrence, fingerprint, args)."""

    rows: list[tuple[Int, int, int, str, Int, bytes, bytes]]
    terms: list[Term] = []


class Deliver(Message, frozen=True, tag=63):
    """Results for a host's runs, in the order of their numbers: (run, step, seq, status, payload, at).

    Step 0 stands for a cancel of the run; its payload is the cause as text.
    """

    rows: list[tuple[int, int, int, int, bytes, int]]


class Finish(Message, frozen=True, tag=64):
    """A run has ended: `state` is one of the three that are final."""

    run: int
    state: typing.Annotated[str, msgspec.Meta(pattern="^(completed|failed|cancelled)$")]
    payload: bytes


class Block(Message, frozen=True, tag=65):
    """A run can't go on: its history does not fit the code."""

    run: int
    reason: str


class Withdraw(Message, frozen=True, tag=66):
    """A host's runs do not want these steps any more: (run, step). Those that run are killed."""

    rows: list[tuple[int, int]]


class Forget(Message, frozen=True, tag=67):
    """A run is not this host's any more: it drops it without another word."""

    run: int


OfHosts = (
    Assign | History | More | Steps | Deliver | Finish | Block | Withdraw | Forget
)  # fmt: skip

__all__ = [
    "Assign", "Block", "Deliver", "Finish", "Forget", "History", "More", "OfHosts", "Steps", "Withdraw",
]  # fmt: skip
