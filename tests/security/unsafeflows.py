"""Runs of every state, for files that are tampered with."""

from __future__ import annotations

from typing import Any

import dq


@dq.step
def add(a: int, b: int) -> int:
    return a + b


@dq.step
def refuse() -> None:
    raise ValueError("no")


@dq.workflow
def done() -> int:
    dq.publish("stage", "adding")
    return add(1, 2)


@dq.workflow
def fails() -> None:
    refuse()


@dq.workflow
def waits() -> Any:
    add(3, 4)
    return dq.wait_signal("go"), dq.wait_signal("again")


@dq.workflow
def later() -> int:
    return add.options(delay=3600)(1, 2)


@dq.step
async def double(number: int) -> int:
    return 2 * number


@dq.workflow
async def later_on() -> int:
    return 1 + await double(3)


def fill(db: str) -> None:
    """A file with a run that has completed, one that has failed, one that waits, a signal, a schedule and a dead letter."""
    with dq.Engine(db, workers=1) as engine:
        assert engine.start(done, id="done").result(30) == 3
        fails_as = engine.start(fails, id="fails")
        assert isinstance(_error(fails_as), ValueError)
        engine.start(waits, id="waits")
        engine.signal("waits", "later", {"by": "ann"})
        assert isinstance(_failed(engine.submit(refuse)), ValueError)
        assert engine.submit(lambda: 5).result(30) == 5
        engine.schedule(done, "0 0 1 1 *", id="yearly")


def _error(run: dq.Run[Any]) -> BaseException | None:
    try:
        run.result(30)
    except ValueError as error:
        return error
    return None


def _failed(future: dq.Future[Any]) -> BaseException | None:
    return future.exception(30)
