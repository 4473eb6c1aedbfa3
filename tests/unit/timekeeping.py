"""A clock that a test sets, and a supervisor that fires by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dq.crew.ledger import Function
from dq.executor.frames import Book, Define, Plans, Refused, Replan
from dq.model.states import RunState
from tests.unit.crewroom import Guest, Room, open_room

SECOND = 1_000_000


class Clock:
    """Shows what it is set to."""

    def __init__(self, moment: str) -> None:
        self.set(moment)

    def set(self, moment: str) -> None:
        """Sets it to a moment in UTC, such as "2026-11-24 18:05:00"."""
        self.micros = round(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()) * SECOND

    def now(self) -> int:
        return self.micros

    def monotonic(self) -> float:
        return self.micros / SECOND


class Seconds:
    """A clock whose two sides a test moves together."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> int:
        return int(self.seconds * SECOND)


class Office:
    """A supervisor without processes, and one client that books."""

    def __init__(self, room: Room, clock: Clock) -> None:
        self.room = room
        self.clock = clock
        self.supervisor = room.supervisor
        self.guest = Guest(room)
        self.notices: list[str] = []
        room.supervisor.notice = self.notices.append  # type: ignore[method-assign,assignment]
        self.workflow()

    def workflow(self, name: str = "m:flow", number: int = 1) -> Function:
        """Has the client define a workflow under a number."""
        digest = name.encode().ljust(16, b"-")
        define = Define(number, name, "workflow", digest, b"code", "", 3)
        function = self.supervisor.ledger.function(define, self.room.context)
        self.guest.client.functions[number] = function
        return function

    def book(
        self, expression: str, tz: str = "UTC", catch_up: str = "skip", overlap: str = "allow", *,
        id: str = "s", function: int = 1, args: bytes = b"pargs",
    ) -> Plans | Refused:  # fmt: skip
        answer: Plans | Refused = self.asks(Book(7, id, function, args, b"f" * 16, expression, tz, catch_up, overlap))
        return answer

    def replan(self, what: str, id: str = "s") -> Any:
        return self.asks(Replan(7, id, what))

    def asks(self, message: Any) -> Any:
        """The answer, once it is on disk."""
        self.guest.says(message)
        self.supervisor.committer.settle()
        (answer,) = self.guest.hears(object)
        return answer

    def at(self, moment: str) -> list[str]:
        """Sets the clock, does what is due, and returns the names of all runs."""
        self.clock.set(moment)
        return self.fire()

    def fire(self) -> list[str]:
        self.supervisor.alarms.run(self.clock.now())
        return self.runs()

    def runs(self) -> list[str]:
        return [name for (name,) in self.room.rows("SELECT name FROM dq_run ORDER BY id")]

    def ends(self, name: str) -> None:
        """A run returns."""
        run = self.supervisor.ledger.by_name[name]
        self.supervisor.ledger.homeless.pop(run.id, None)
        self.supervisor.hosts.end(run, RunState.COMPLETED, b"presult")
        self.supervisor.committer.settle()

    def column(self, name: str) -> Any:
        ((value,),) = self.room.rows(f"SELECT {name} FROM dq_schedule")
        return value


@contextmanager
def office(folder: Path, clock: Clock, *, workers: int = 2) -> Iterator[Office]:
    """A supervisor that is killed at the end of the block."""
    with open_room(folder, workers=workers, clock=clock) as room:
        yield Office(room, clock)


def names(day: str, *times: str) -> list[str]:
    """What the runs of these times are called."""
    return [f"s@{day}T{time}Z" for time in times]
