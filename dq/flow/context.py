"""Which run is running in this thread, if any: what makes a plain call of a step a durable one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from dq.errors import DqError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from typing import TypeAlias
    from uuid import UUID

    from dq.executor.current import Info
    from dq.executor.frames import Term
    from dq.flow.awaited import Ready
    from dq.flow.decorators import Step, Workflow
    from dq.flow.future import Future
    from dq.flow.journal import Target

    Called: TypeAlias = Step[..., Any] | Workflow[..., Any]


class Flow(Protocol):
    """A run as the decorators see it."""

    id: int
    name: str
    scheduled_at: int  # microseconds UTC, or 0

    def call(self, step: Called, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...
    def submit(self, step: Called, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]: ...
    def map(self, step: Called, calls: Iterable[tuple[Any, ...]]) -> list[Any]: ...
    def park(self, wanted: Ready) -> None: ...
    def wait_for(self, name: str, told: tuple[Any, ...], term: Term) -> Any: ...
    def signal(self, run: str, name: str, payload: Any) -> Any: ...
    def note(self, name: str, told: tuple[Any, ...], args: tuple[Any, ...], term: Term) -> None: ...
    def checkpoint(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn: ...
    def compensate(self, step: Called, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None: ...
    def timer(self, micros: int, target: Target) -> int: ...
    def withdraw(self, step: int) -> None: ...
    def patched(self, name: str) -> bool: ...
    @property
    def now(self) -> int: ...
    def draw(self) -> bytes: ...
    def key(self) -> str: ...


# Set by a host around the code of a run. A host runs all its runs in one thread, so this needs no lock.
running: Flow | None = None


def current() -> Info:
    """What the code that runs now may know of itself.

    In the body of a step: its id, its attempt, and a key that is the same for all its attempts. In a workflow: the run's
    name, a key that is the same on every replay, and the time that its schedule has started it for.

    Example:
        @dq.step
        def charge(cents: int) -> None:
            bank.charge(cents, idempotency_key=dq.current().idempotency_key)

    Raises:
        LookupError: Neither a step nor a run is running here.
    """
    from dq.executor import current as attempt

    if running is None:
        return attempt.current()
    due = _moment(running.scheduled_at) if running.scheduled_at else None
    return attempt.Info(0, 0, 0, running.name, attempt.keyed(running.key()), scheduled_at=due)


def progress(cursor: Any) -> None:
    """Keeps how far the body of a step has come, for its next attempt: `dq.current().cursor`.

    It has left this process when the call returns, so that it is not lost when the process is killed then. Only the last
    one is kept, until the step has ended. Outside of a step there is nobody to keep it, and nothing happens.

    Args:
        cursor: Anything that can be pickled, of up to 256 KiB.

    Example:
        @dq.step
        def load(path: str) -> None:
            first = dq.current().cursor or 0
            for number, line in enumerate(open(path)):
                if number >= first:
                    store(line)
                    dq.progress(number + 1)

    Raises:
        DqError: A workflow calls it: its steps are its progress.
        NotPicklable: The cursor can't travel.
        ValueError: It is too large.
    """
    if running is not None:
        raise DqError(
            "dq.progress(...) belongs into the body of a step, and a workflow has called it. What a workflow has done is "
            "on record by its steps; dq.publish(key, value) tells others how far it has come"
        )
    from dq.executor import progress as telling

    telling.tell(cursor)


def now() -> datetime:
    """The time, with its time zone (UTC). In a workflow it is the same on every replay.

    A run's own time is when what it has heard of last came about; it stands still while the workflow's own code runs.
    """
    from datetime import UTC, datetime

    if running is None:
        return datetime.now(UTC)
    return _moment(running.now)


def _moment(micros: int) -> datetime:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(micros / 1_000_000, UTC)


def random() -> float:
    """A random number in [0, 1). In a workflow it is the same on every replay; elsewhere it is `random.random()`."""
    if running is None:
        import random as chance

        return chance.random()
    return int.from_bytes(running.draw()[:7], "little") / (1 << 56)


def uuid4() -> UUID:
    """A random UUID. In a workflow it is the same on every replay; elsewhere it is `uuid.uuid4()`."""
    import uuid

    if running is None:
        return uuid.uuid4()
    return uuid.UUID(bytes=running.draw(), version=4)
