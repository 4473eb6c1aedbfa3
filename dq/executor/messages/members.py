"""Between the supervisor and templates, workers and bridges."""

# msgspec hands `frozen` down to subclasses, and pyright wants it repeated in each of them.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import msgspec

from dq.executor.messages.base import Define, Int, Message, Params, Term


class Try(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What came of a step's earlier attempts, where that matters to the next one."""

    step: int
    failures: int  # attempts that count for its retries
    since: int  # when the first of them began; microseconds UTC
    cursor: bytes  # a payload: how far it said that it had come; b"" for nothing
    verdict: bytes  # the failure of an attempt that nobody has judged yet; b"" for none


class Fork(Message, frozen=True, tag=40):
    """Asks for a worker, bridge or host; its two sockets come with the frame."""

    kind: str  # "worker" or "host"
    executor: str  # spec, such as "process:4"; "" for a host
    slot: int
    nonce: bytes
    boot_epoch: int
    salt: str = ""  # tells the database from all others


class Ready(Message, frozen=True, tag=41):
    """User code is imported. With more than one thread, forking is unsafe and spawning is used."""

    threads: int


class Broken(Message, frozen=True, tag=42):
    """User code can't be imported. `guard` is what its author must be told where an engine is opened on the way."""

    text: str
    guard: str


class Joined(Message, frozen=True, tag=43):
    """The first frame of a new worker or host: it can be asked to work."""

    pid: int
    started: int  # field 22 of /proc/PID/stat
    nonce: bytes


class Unfit(Message, frozen=True, tag=44):
    """A new worker or host can't start; the text says why."""

    text: str


class Preload(Message, frozen=True, tag=46):
    """Asks a template to import modules, so that members have them from birth. Answered by Ready."""

    modules: list[str]


class Claim(Message, frozen=True, tag=50):
    """Steps that are this worker's now, in order: (id, attempt, function, arguments)."""

    epoch: int
    rows: list[tuple[int, int, int, bytes]]
    tries: list[Try] = []
    runs: list[str] = []  # names of runs: none for steps alone, one if it is the same for all, else one for each row


class Results(Message, frozen=True, tag=51):
    """What came out: (id, status, payload, begun at in microseconds UTC, nanoseconds in the body).

    The supervisor passes it on to the client that submitted the steps, byte for byte, once it is on disk.
    """

    epoch: int
    rows: list[tuple[int, int, bytes, Int, Int]]


class Revoke(Message, frozen=True, tag=52):
    """On the control socket: give back what you have not begun."""


class GaveBack(Message, frozen=True, tag=53):
    """On the control socket, the answer: (epoch, id) of steps that will not be begun."""

    rows: list[tuple[int, int]]


class Stop(Message, frozen=True, tag=54):
    """Finish what is begun, then leave."""


class Progress(Message, frozen=True, tag=55):
    """How far the body of a step says that it has come: a payload for its next attempt."""

    epoch: int
    step: int
    cursor: bytes


class Effects(Message, frozen=True, tag=56):
    """A body has returned, and this is to be done together with its completion, or not at all.

    `submits` are steps alone: (place of the function in `defines`, arguments); the `step` of a term is a place in them.
    """

    epoch: int
    step: int
    payload: bytes
    began: Int  # microseconds UTC
    busy: Int  # nanoseconds in the body
    statements: list[tuple[str, Params, int | None]]  # with the number of rows that each must change
    signals: list[tuple[str, str, bytes]]  # (run, name, payload)
    defines: list[Define]
    submits: list[tuple[int, bytes]]
    terms: list[Term] = []


OfMembers = (
    Fork | Ready | Broken | Joined | Unfit | Preload | Claim | Results | Revoke | GaveBack | Stop | Progress |
    Effects
)  # fmt: skip

__all__ = [
    "Broken", "Claim", "Effects", "Fork", "GaveBack", "Joined", "OfMembers", "Preload", "Progress", "Ready",
    "Results", "Revoke", "Stop", "Try", "Unfit",
]  # fmt: skip
