"""What is in memory of work that is asked for and work that is claimed.

    Batch    steps submitted alone in one frame, by one client; kept in the file while one of them has no result
    Segment  a stretch of pending rows of one owner: loaded, or a range of ids to be read from the file in its turn
    Claim    rows that are one member's now, under one epoch

A row is the plain tuple (id, attempt, function, arguments), which is what a Claim frame holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dq.crew.gates import Gate
    from dq.crew.ledger import Run
    from dq.crew.peer import Peer

Row = tuple[int, int, int, bytes]


class Span(NamedTuple):
    """Steps of one function in the file, within a range of ids."""

    function: int
    first: int
    last: int
    steps: int


class Batch:
    """Consecutive ids submitted alone, and how many of them have no result."""

    __slots__ = ("first", "last", "owner", "remaining")

    def __init__(self, first: int, last: int, remaining: int, owner: Peer | None) -> None:
        self.first = first
        self.last = last
        self.remaining = remaining
        self.owner = owner


class Segment:
    """Pending rows of one owner, in order, from `at` on. `left` counts those that are still in the file only."""

    __slots__ = ("after", "at", "batch", "function", "gate", "last", "left", "priority", "rows", "run")

    def __init__(self, rows: list[Row], batch: Batch | None) -> None:
        self.rows = rows
        self.at = 0
        self.batch = batch
        self.run: Run | None = None
        self.gate: Gate | None = None  # where it waits, unless for a worker only
        self.priority = 0
        self.function = 0
        self.after = self.last = self.left = 0

    @classmethod
    def stored(cls, span: Span, batch: Batch | None, run: Run | None) -> Segment:
        """Rows that nobody has read from the file yet."""
        segment = cls([], batch)
        segment.function, segment.run = span.function, run
        segment.after, segment.last, segment.left = span.first - 1, span.last, span.steps
        return segment

    def placed(self, place: tuple[Gate, int] | None) -> Segment:
        """The same, waiting at a gate with a priority, unless for a worker only."""
        if place is not None:
            self.gate, self.priority = place
        return self

    @property
    def first(self) -> int:
        """The lowest id that it may hold."""
        return self.rows[self.at][0] if self.at < len(self.rows) else self.after + 1

    @property
    def size(self) -> int:
        return len(self.rows) - self.at + self.left

    def take(self, count: int) -> list[Row]:
        """The next rows, at most so many, of those that are loaded."""
        rows = self.rows[self.at : self.at + count]
        self.at += len(rows)
        return rows


class Claim:
    """Rows that a member holds. `open` loses a row with its result; the claim ends when it is empty."""

    __slots__ = ("batch", "epoch", "estimate", "gate", "open")

    def __init__(
        self, epoch: int, batch: Batch | None, rows: list[Row], estimate: int, gate: Gate | None = None
    ) -> None:
        self.epoch = epoch
        self.batch = batch
        self.open = {row[0]: row for row in rows}
        self.estimate = estimate  # nanoseconds for one row
        self.gate = gate  # whose limits count it


def stretches(rows: list[Row]) -> list[list[Row]]:
    """Cuts rows where the function changes."""
    parts: list[list[Row]] = []
    for row in rows:
        if parts and parts[-1][0][2] == row[2]:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts
