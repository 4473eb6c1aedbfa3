"""What a run has published, read from outside."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dq.executor.frames import Events, Follow, Published

if TYPE_CHECKING:
    from dq.client.connection import Connection


class Event(NamedTuple):
    """Something that a run has published.

    Attributes:
        key: Under which key.
        value: What.
        at: When, with its time zone (UTC).
    """

    key: str
    value: Any
    at: datetime


def published(line: Connection, run: int, key: str, default: Any) -> Any:
    """The latest value that a run has published under a key, `default` where there is none."""
    events = cast(Events, line.ask(lambda ticket: Published(ticket, run, key)))
    return _event(line, events.rows[0]).value if events.rows else default


def follow(line: Connection, run: int) -> Iterator[Event]:
    """All that a run publishes, from the first on, until it ends. A lost supervisor is a pause, not an end."""
    after = 0
    while True:
        position = after
        events = cast(Events, line.ask(lambda ticket: Follow(ticket, run, position)))  # noqa: B023 -- it is called at once
        for row in events.rows:
            yield _event(line, row)
            after = row[0]
        if events.state:
            return


def _event(line: Connection, row: tuple[int, str, bytes, int]) -> Event:
    args, _ = line.codec.load_call(row[2])
    return Event(row[1], args[1], datetime.fromtimestamp(row[3] / 1_000_000, UTC))
