"""What a workflow puts on record without waiting for it: what it publishes, whom it signals, which code it took."""

from __future__ import annotations

from typing import Any

from dq.errors import DqError
from dq.flow import context


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
    run.note(PUBLISH, (key,), value, Term(0, topic=key))


def patched(name: str) -> bool:
    """Whether a run takes the code after a change: True where it comes here for the first time, and ever after.

    A run that was past this point when the code was changed gets False, on every replay.

    Example:
        if dq.patched("two-step-payment"):
            reserve(order)
            capture(order)
        else:
            pay(order)
    """
    run = context.running
    return True if run is None else run.patched(name)
