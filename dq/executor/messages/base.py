"""What all conversations share."""

# msgspec hands `frozen` down to subclasses, and pyright wants it repeated in each of them.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import typing

import msgspec


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The base of all messages."""


# What ends up in the file: its integers have 64 bits, and leave room for a time to be added.
Int = typing.Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
Kind = typing.Annotated[str, msgspec.Meta(pattern="^(step|workflow)$")]


class Context(msgspec.Struct, frozen=True, array_like=True):
    """Where user code comes from: what a template needs to import it."""

    python: str  # the interpreter's path
    script: str  # the file behind `__main__`, or ""
    cwd: str
    path: tuple[str, ...]  # sys.path
    source: str  # hash of the script's text, or ""


class Lease(Message, frozen=True, tag=3):
    """Asks for another block of ids."""


class Leased(Message, frozen=True, tag=4):
    first: int
    count: int


class Define(Message, frozen=True, tag=5):
    """Introduces a function under a number: the sender's own one on the way in, the file's on the way to workers."""

    number: int
    name: str  # "module:qualname"; the label of a function that travels by value
    kind: Kind
    digest: bytes  # identifies name, code and options; 16 bytes
    code: bytes  # cloudpickle, or b"" when it travels by name
    executor: str
    max_crashes: Int
    options: bytes = b""  # a packed `options.Options`; b"" for none


Value = int | float | str | bytes | None
Params = list[typing.Any] | dict[str, typing.Any]  # Values of a user's statement; msgspec takes no union of two texts


class Term(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a step waits for besides a worker."""

    step: int
    after: Int = 0  # microseconds from when it is taken down; 0: no delay
    at: Int = 0  # microseconds UTC; 0: at once
    priority: Int = 0  # higher goes first
    key: str = ""  # its queue's limits count by it
    dedup: str = ""
    dedup_for: Int = 0  # microseconds; 0: while that step is open
    topic: str = ""  # the signal that a wait is for; the key of what is published
    data: bytes = b""  # a signal's payload; `key` is the run that it is sent to
    debounce: Int = 0  # microseconds for which the next one with the same `dedup` may take its place; 0: no time


class Notice(Message, frozen=True, tag=6):
    """Something a person should read: a warning that is not an error of this client."""

    text: str


class Refused(Message, frozen=True, tag=7):
    """What was asked under `ticket` is refused; `error` names a class of dq.errors."""

    ticket: int
    error: str
    text: str


class Done(Message, frozen=True, tag=33):
    """What was asked under `ticket` is on disk; `text` says what came of it."""

    ticket: int
    text: str = ""


Common = (
    Lease | Leased | Define | Notice | Refused | Done
)  # fmt: skip

__all__ = [
    "Common", "Context", "Define", "Done", "Int", "Lease", "Leased", "Message", "Notice", "Params", "Refused", "Term",
    "Value",
]  # fmt: skip
