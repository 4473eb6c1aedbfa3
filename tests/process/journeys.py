"""Workflows that undo, publish, and never end, for tests that kill."""

from __future__ import annotations

import asyncio
import os

import dq
from tests.process.flows import hold, note


@dq.step
def do(folder: str, name: str) -> str:
    note(folder, "do", name)
    return name


@dq.step
def undo(folder: str, name: str) -> None:
    note(folder, "undo", name)
    note(folder, "begin", f"undo-{name}", os.getpid())
    if name == "held":
        hold(folder, "undo-held")
    if name == "broken":
        raise ValueError("it can't be undone")


@dq.step
def fail() -> None:
    raise RuntimeError("no room")


@dq.workflow
def trip(folder: str, names: list[str], ending: str = "fail") -> str:
    for name in names:
        dq.compensate(undo, folder, name)
        do(folder, name)
    if ending == "fail":
        fail()
    if ending == "wait":
        dq.wait_signal("never")
    return "arrived"


@dq.workflow
async def async_trip(folder: str) -> None:
    dq.compensate(undo, folder, "a")
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(1000))
        await do.submit(folder, "a")
        note(folder, "begin", "waiting", os.getpid())


@dq.step
def increase(folder: str, number: int) -> int:
    note(folder, "increase", number)
    return number + 1


@dq.workflow
def rounds(folder: str, number: int, left: int) -> int:
    """Asks for ten steps in each chapter."""
    for _ in range(10):
        number = increase(folder, number)
    if left:
        dq.checkpoint(folder, number, left - 1)
    note(folder, "begin", "last", os.getpid())
    hold(folder, "last")
    return increase(folder, number)


@dq.workflow
def clocked(folder: str, left: int, seen: list[str]) -> list[str]:
    """Tells its own time at the beginning and the end of each chapter."""
    seen = [*seen, dq.now().isoformat()]
    increase(folder, left)
    seen = [*seen, dq.now().isoformat()]
    if left:
        dq.checkpoint(folder, left - 1, seen)
    first = dq.now().isoformat()
    note(folder, "begin", "last", first)
    hold(folder, "last")
    return [*seen, first]


@dq.workflow
async def async_rounds(folder: str, number: int, left: int) -> int:
    number = await increase.submit(folder, number)
    if left:
        dq.checkpoint(folder, number, left=left - 1)
    return number


@dq.workflow
def unready(folder: str, how: str) -> None:
    if how == "open":
        do.submit(folder, "a")
    else:
        dq.compensate(undo, folder, "a")
    dq.checkpoint(folder, how)


@dq.workflow
def telling(folder: str, count: int) -> int:
    for number in range(count):
        dq.publish("number", number)
        dq.publish("square", number * number)
        if number == count // 2:
            dq.wait_signal("go on")
    return count
