"""What a workflow puts on record without waiting for it: what it publishes, whom it signals, which code it took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec

from dq.errors import DqError
from dq.flow import context
from dq.model import names

P = ParamSpec("P")


def publish(key: str, value: Any) -> None:
    """Makes a value readable from outside while the run goes on: `run.published(key)`, `run.follow()`.

    It is on record once, however often the run is replayed.

    Example:
        dq.publish("stage", "rendering")

    Raises:
        DqError: No run is running here.
    """
    from dq.executor.frames import Term
    from dq.executor.options import PUBLISH

    run = context.running
    if run is None:
        raise DqError(f"dq.publish({key!r}, ...) belongs into a workflow, and no run is running here")
    names.checked("a published value's key", key)
    run.note(PUBLISH, (key,), (key, value), Term(0, topic=key))


def checkpoint(*args: Any, **kwargs: Any) -> NoReturn:
    """Begins the workflow again with these arguments, and cuts the history that a replay must read. Never returns.

    For workflows that never end: what came before is not read again, however long the run has been going on.

    Example:
        @dq.workflow
        def watch(cursor: int) -> None:
            for _ in range(1000):
                cursor = poll(cursor)
                dq.sleep(60)
            dq.checkpoint(cursor)

    Raises:
        DqError: Steps are under way, compensations are registered, or no run is running here.
    """
    run = context.running
    if run is None:
        raise DqError("dq.checkpoint(...) belongs into a workflow, and no run is running here")
    run.checkpoint(args, kwargs)


def compensate(step: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
    """Registers what undoes something, should this run fail or be cancelled: then it runs, the last registered first.

    Compensations are steps of the run: each is recorded, so that a crash in their middle does not repeat those that are
    done. One that fails does not keep the others from running; the run's exception says so in a note.

    Example:
        dq.compensate(cancel_flight, booking)
        booking = book_flight(trip)

    Raises:
        TypeError: It is no step and no workflow.
    """
    from dq.flow.decorators import Step, Workflow

    if not isinstance(step, (Step, Workflow)):
        raise TypeError(f"dq.compensate takes a step or a workflow, since what it does must be on record; not {step!r}")
    run = context.running
    if run is not None:
        run.compensate(step, args, kwargs)


def patched(name: str) -> bool:
    """Whether a run takes the code after a change: True where it comes here for the first time, and ever after.

    A run that was past this point when the code was changed gets False, on every replay. The first call with a name
    decides for the whole run (for a chapter of it, where it makes checkpoints), also in a loop.

    Example:
        if dq.patched("two-step-payment"):
            reserve(order)
            capture(order)
        else:
            pay(order)
    """
    run = context.running
    return True if run is None else run.patched(names.checked("the name of a change", name))
