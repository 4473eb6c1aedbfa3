"""Queues, as an engine sees them: how they stand, and the handle to change them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, cast

from dq.executor.frames import Done, ListQueues, QueueState, QueueStates, SetQueue
from dq.flow.queue import checked, seconds

if TYPE_CHECKING:
    from dq.client.connection import Connection

KEEP = -1  # as it is


class QueueInfo(NamedTuple):
    """How a queue stands.

    Attributes:
        name: The queue's name.
        waiting: Steps that may not begin yet; those that wait for a time of their own are not among them.
        running: Steps that workers hold.
        paused: Whether nothing of it begins.
        concurrency: How many of its steps may run at once (for each key), None for no limit.
        per_worker: How many one worker may hold.
        rate: (n, seconds), None for no limit.
        by_hand: Whether the limits were set by hand, and not by the code.
        oldest_at: When the oldest that waits was asked for (UTC); None where nothing waits.
    """

    name: str
    waiting: int
    running: int
    paused: bool
    concurrency: int | None
    per_worker: int | None
    rate: tuple[int, float] | None
    by_hand: bool
    oldest_at: datetime | None


class QueueHandle:
    """A queue of the file, to look at and to change while it is at work. `engine.queue(name)` returns one.

    What is set here holds until it is set again, over restarts too, and goes before the limits in the code.

    Example:
        api = engine.queue("api")
        api.limit(concurrency=1)
        api.pause()
        print(api.info().waiting)
    """

    def __init__(self, line: Connection, name: str) -> None:
        self.name = name
        self._line = line

    def __repr__(self) -> str:
        return f"<dq.Queue {self.name!r} of {self._line.codec.folder}>"

    def pause(self) -> str:
        """Lets nothing of the queue begin any more; what runs goes on. Returns how the queue stands, as a sentence."""
        return self._set(paused=1)

    def resume(self) -> str:
        """Lets its steps begin again. Returns how the queue stands, as a sentence."""
        return self._set(paused=0)

    def limit(
        self,
        *,
        concurrency: int | None = KEEP,
        per_worker: int | None = KEEP,
        rate: tuple[int, float] | None = (KEEP, KEEP),
        default: bool = False,
    ) -> str:
        """Sets limits; those that are not named stay as they are. Returns how the queue stands, as a sentence.

        Args:
            concurrency: How many of its steps may run at once; None for no limit. What runs above it goes on.
            per_worker: How many of them one worker may hold at once.
            rate: (n, seconds): no more than n begin within so many seconds.
            default: Back to the limits that the code says.

        Raises:
            ValueError: A limit makes no sense.
        """
        kept = (concurrency, per_worker, rate) == (KEEP, KEEP, (KEEP, KEEP))
        if default != kept:
            raise ValueError("say which limits to set, or default=True for those of the code, and not both")
        checked(self.name, None if concurrency == KEEP else concurrency, None if per_worker == KEEP else per_worker)
        count, period = (KEEP, KEEP)
        if rate != (KEEP, KEEP):
            checked(self.name, rate=rate)
            count, period = (rate[0], round(seconds(rate[1]) * 1_000_000)) if rate is not None else (0, 0)
        limits = (concurrency or 0, per_worker or 0, count, period)
        return self._set(limits=limits, default=default)

    def info(self) -> QueueInfo:
        """How it stands now. Asks the supervisor."""
        return listed(self._line, self.name)[0]

    def _set(
        self, paused: int = KEEP, limits: tuple[int, int, int, int] = (KEEP, KEEP, KEEP, KEEP), *, default: bool = False
    ) -> str:
        answer = self._line.ask(lambda ticket: SetQueue(ticket, self.name, paused, limits, default))
        return cast(Done, answer).text


class Queues:
    """The part of an engine that deals with queues."""

    _line: Connection

    def queue(self, name: str) -> QueueHandle:
        """The queue of a name, to look at and to change while it is at work; see `dq.Queue` for the limits in the code."""
        checked(name)
        return QueueHandle(self._line, name)

    def queues(self) -> list[QueueInfo]:
        """How all queues stand, by name."""
        return listed(self._line)


def listed(line: Connection, name: str = "") -> list[QueueInfo]:
    """How all queues stand, or the one of a name."""
    answer = line.ask(lambda ticket: ListQueues(ticket, name))
    return [_info(state) for state in cast(QueueStates, answer).rows]


def _info(state: QueueState) -> QueueInfo:
    concurrency, per_worker, count, period = state.limits
    return QueueInfo(
        state.name, state.waiting, state.running, state.paused, concurrency or None, per_worker or None,
        (count, period / 1e6) if count else None, state.by_hand,
        datetime.fromtimestamp(state.oldest_at / 1e6, UTC) if state.oldest_at else None,
    )  # fmt: skip
