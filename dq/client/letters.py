"""Dead letters: what has ended badly and that nobody has dealt with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dq.client import ids
from dq.client.ask import Ask
from dq.client.steps import StepFuture
from dq.errors import DamagedPayload, NoSuchLetter
from dq.executor import failures, frames
from dq.executor.failures import Failure

if TYPE_CHECKING:
    from dq.client.connection import Connection
    from dq.flow.future import Future

# What differs between two failures of one cause: addresses, numbers, and what is quoted.
_VARYING = re.compile(r"0x[0-9a-fA-F]+|'[^'\n]*'|\"[^\"\n]*\"|\b[0-9a-fA-F]{8,}\b|\d+")


class DeadLetter(NamedTuple):
    """A step that killed its workers, a step submitted alone that failed, or a run that failed.

    Attributes:
        id: What it is asked for by: the step's number, or the run's id.
        run: The run's id; of a step, that of the run it belongs to, "" for one submitted alone.
        name: What the record calls the step or the workflow, such as "flows:render".
        ended: "dead" or "failed".
        state: "open", "retried" or "discarded".
        successor: The number of the step or run that tries again, None where none does.
        attempts: How many attempts it took; 0 for a run.
        pid: The process of the last attempt, 0 where that is not known.
        created_at: With its time zone (UTC), as is `ended_at`.
        type: The failure's type, such as "ValueError".
        text: What it says.
        traceback: Where it was raised, as text.
    """

    id: int | str
    run: str
    name: str
    ended: str
    state: str
    successor: int | None
    attempts: int
    pid: int
    created_at: datetime
    ended_at: datetime
    type: str
    text: str
    traceback: str

    @property
    def fingerprint(self) -> str:
        """The same for failures of one cause: made of type, name and traceback, without numbers and quoted values."""
        told = self.traceback or self.text
        return blake2b(f"{self.type}\0{self.name}\0{_VARYING.sub('#', told)}".encode(), digest_size=6).hexdigest()

    @property
    def is_run(self) -> bool:
        """Whether it is a run and not a step."""
        return isinstance(self.id, str)


def letter(line: Any) -> DeadLetter:
    """What is told of a dead letter, from a row of the file or a frame. Nothing is unpickled."""
    told = _failure(line.payload)
    is_run = bool(line.run) and line.ended == "failed"
    return DeadLetter(
        line.run if is_run else line.id, line.run, line.function, line.ended, line.state, line.successor, line.attempt,
        line.pid, _time(line.created_at), _time(line.ended_at), told.type_name, told.text, told.traceback,
    )  # fmt: skip


def _failure(payload: bytes) -> Failure:
    try:
        return failures.read(payload or b"")
    except DamagedPayload as error:
        return Failure("dq.errors.DamagedPayload", str(error), "", b"")


def _time(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1_000_000, UTC)


class Group(NamedTuple):
    """Dead letters of one fingerprint."""

    fingerprint: str
    name: str
    type: str
    text: str  # of the latest
    times: int
    first: datetime
    last: datetime
    example: int | str  # the id of the latest


def groups(letters: Iterable[DeadLetter]) -> list[Group]:
    """Letters by fingerprint, the largest group first."""
    found: dict[str, list[DeadLetter]] = {}
    for one in letters:
        found.setdefault(one.fingerprint, []).append(one)
    made: list[Group] = []
    for mark, members in found.items():
        members.sort(key=lambda one: one.ended_at)
        last = members[-1]
        made.append(
            Group(mark, last.name, last.type, last.text, len(members), members[0].ended_at, last.ended_at, last.id)
        )
    return sorted(made, key=lambda group: (-group.times, group.name))


class _Retrial(Ask):
    """Asks for a new try. Its future is booked as soon as that is on disk, in the thread that hears of results."""

    __slots__ = ("_future", "_pending")

    def __init__(self, message: frames.RetryStep, future: StepFuture[Any], pending: dict[int, Any]) -> None:
        super().__init__(message, message.ticket)
        self._future = future
        self._pending = pending

    def settle(self, answer: Any) -> None:
        self._pending[self._future._id] = self._future
        super().settle(answer)


class Letters:
    """The part of an engine that deals with dead letters."""

    _line: Connection

    def dead(self, *, all: bool = False, limit: int = 1000) -> list[DeadLetter]:
        """What has ended badly and that nobody has dealt with, the latest first.

        That is: steps that killed their worker `max_crashes` times, steps submitted alone that failed, runs that failed.

        Args:
            all: Also what was retried or discarded.
            limit: How many, at most.

        Raises:
            ValueError: The limit is below 1.

        Example:
            for letter in engine.dead():
                print(letter.id, letter.name, letter.type, letter.text)
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be 1 at least")
        found = cast(frames.Dead, self._line.ask(lambda ticket: frames.ListDead(ticket, all, limit)))
        return [letter(line) for line in found.letters]

    def retry_step(self, id: int) -> Future[Any]:
        """Tries once more what a dead letter was to do: a new step with the same function and arguments.

        Returns when that is on disk. A step of a run is retried with its run, by `retry`.

        Args:
            id: The number of a step that was submitted alone and failed, or is dead.

        Raises:
            NoSuchLetter: There is no such dead letter, or it is retried already.

        Example:
            results = [engine.retry_step(letter.id) for letter in engine.dead() if letter.run == ""]
        """
        line = self._line
        future: StepFuture[Any] = StepFuture()
        future._line = line
        future._id = line.next_id()
        message = frames.RetryStep(next(line._tickets), future._id, _number(id))
        ask = _Retrial(message, future, line._pump.accounts.pending)
        line._post(ask)
        line.answer(ask)
        return future

    def discard(self, id: int | str) -> str:
        """Takes a dead letter off the list: it is dealt with. Nothing is deleted. Returns what was done, as a sentence.

        Args:
            id: The number of a step, or the id of a run.

        Raises:
            NoSuchLetter: There is no such dead letter.
        """
        run, step = (ids.checked(id), 0) if isinstance(id, str) else ("", _number(id))
        return cast(frames.Done, self._line.ask(lambda ticket: frames.Discard(ticket, run, step))).text


def _number(id: int) -> int:
    """Raises NoSuchLetter, TypeError."""
    if isinstance(id, bool) or not isinstance(id, int):
        raise TypeError(f"a step has a number, not {id!r}; `dq dead ls` shows them")
    if not 0 < id < 1 << 63:
        raise NoSuchLetter(f"there is no step {id}")
    return id
