"""Between clients and the supervisor: steps submitted alone, and the connection itself."""

# msgspec hands `frozen` down to subclasses, and pyright wants it repeated in each of them.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from dq.executor.messages.base import Context, Message, Params, Term


class Hello(Message, frozen=True, tag=1):
    """A client introduces itself. `keep` asks an engine's own supervisor to stay while the client is attached."""

    version: int
    pid: int
    nonce: bytes
    context: Context | None
    works: bool = False  # whether it would start a supervisor that has workers
    mark: bytes = b""  # tells the signing key that it has; b"" for none
    key: bytes = b""  # the key itself, to a process that the sender has started

    def __repr__(self) -> str:
        return f"<Hello of process {self.pid}>"  # the key is nothing to be shown


class Welcome(Message, frozen=True, tag=2):
    """The answer to Hello, with a first block of ids. Ids are never given out twice, across boots either."""

    boot_epoch: int
    pid: int
    first: int
    count: int
    works: bool = True  # whether this supervisor has workers


class Submit(Message, frozen=True, tag=10):
    """Steps submitted alone: (id, function number, arguments). Ids of one frame are consecutive."""

    rows: list[tuple[int, int, bytes]]
    terms: list[Term] = []


class Resubmit(Message, frozen=True, tag=11):
    """The same after a reconnect: rows that may be known already."""

    rows: list[tuple[int, int, bytes]]
    terms: list[Term] = []


class Acked(Message, frozen=True, tag=12):
    """That many Submit, Resubmit, Start and Signal frames, in the order they were sent, are on disk now."""

    frames: int


class Adopt(Message, frozen=True, tag=13):
    """After a reconnect: results of these steps and runs, acknowledged earlier, are still wanted."""

    steps: list[int]
    runs: list[int]


class Cancel(Message, frozen=True, tag=21):
    """Cancels steps submitted alone that nobody has claimed."""

    ticket: int
    steps: list[int]


class CancelDone(Message, frozen=True, tag=22):
    ticket: int
    steps: list[int]  # those that were cancelled


class Census(Message, frozen=True, tag=23):
    """Asks who is at work."""

    ticket: int


class Crew(Message, frozen=True, tag=24):
    """(kind, pid, slot, steps finished, id of the step or run at work or 0, microseconds it has been at work)."""

    ticket: int
    boot_epoch: int
    rows: list[tuple[str, int, int, int, int, int]]
    pending: int
    claimed: int
    stale: int = 0  # what came too late since this supervisor began, and was refused


class Flush(Message, frozen=True, tag=25):
    """Answered by Flushed when everything sent before is on disk."""

    ticket: int


class Flushed(Message, frozen=True, tag=26):
    ticket: int


class Bye(Message, frozen=True, tag=27):
    """The client leaves. `now` asks a supervisor that would stop with it not to drain."""

    now: bool


class Farewell(Message, frozen=True, tag=28):
    """The answer to Bye: whether the supervisor stops too, since nobody is left."""

    stops: bool


class Execute(Message, frozen=True, tag=57):
    """A statement from outside, under the same rules. Answered by Done, whose text is a payload in hex, or Refused.

    `id` is new, so that a message which comes again after a reconnect is not done twice.
    """

    ticket: int
    id: int
    sql: str
    params: Params


OfClients = (
    Hello | Welcome | Submit | Resubmit | Acked | Adopt | Cancel | CancelDone | Census | Crew | Flush | Flushed |
    Bye | Farewell | Execute
)  # fmt: skip

__all__ = [
    "Acked", "Adopt", "Bye", "Cancel", "CancelDone", "Census", "Crew", "Execute", "Farewell", "Flush", "Flushed",
    "Hello", "OfClients", "Resubmit", "Submit", "Welcome",
]  # fmt: skip
