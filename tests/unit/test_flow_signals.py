"""Signals, cancels and changes of the code, in a host against a scripted supervisor: live and on replay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import dq
from dq.executor.options import PATCHED
from tests.unit import replaying, scripted
from tests.unit.flowsteps import double


@dq.workflow
def asks(timeout: float | None) -> list[Any]:
    seen: list[Any] = []
    for _ in range(3):
        try:
            seen.append(dq.wait_signal("answer", timeout=timeout))
        except dq.SignalTimeout:
            seen.append("no answer")
    return seen


def test_no_signal_in_time_is_not_the_same_as_a_signal_without_a_payload(crew: scripted.Crew) -> None:
    crew.start(asks, 60)
    crew.until_asked(1)
    crew.signal("answer")
    crew.time_out(crew.until_asked(2)[1])
    crew.until_asked(3)
    crew.signal("answer", {"by": "Ada"})
    live = crew.finish()
    assert live == [None, "no answer", {"by": "Ada"}]
    replaying.from_every_beginning(crew, live)


def test_a_wait_without_a_timeout_has_no_due_time(crew: scripted.Crew) -> None:
    crew.start(asks, None)
    assert [(step.topic, step.due) for step in crew.until_asked(1)] == [("answer", 0)]


@dq.workflow
async def asks_side_by_side() -> list[Any]:
    seen: list[Any] = []

    async def ask(name: str, who: str) -> None:
        seen.append((who, await dq.wait_signal(name)))

    await asyncio.gather(ask("a", "first"), ask("a", "second"), ask("b", "third"))
    return seen


def test_waits_of_one_name_take_signals_in_order(crew: scripted.Crew) -> None:
    crew.start(asks_side_by_side)
    crew.until_asked(3)
    for number, name in enumerate("baa"):
        crew.signal(name, number)
    live = crew.finish()
    assert live == [("third", 0), ("first", 1), ("second", 2)]
    replaying.from_every_beginning(crew, live)


@dq.workflow
async def signal_or_time() -> str:
    try:
        async with asyncio.timeout(10):
            return str(await dq.wait_signal("go"))
    except TimeoutError:
        return "nobody came"


def test_a_wait_under_asyncio_s_timeout_is_withdrawn(crew: scripted.Crew) -> None:
    crew.start(signal_or_time)
    steps = crew.until_asked(2)
    crew.complete(*crew.ready())
    live = crew.finish()
    assert live == "nobody came"
    assert crew.withdrawn == [step.id for step in steps if step.topic == "go"]
    replaying.from_every_beginning(crew, live)


@dq.workflow
def undoes() -> list[Any]:
    seen: list[Any] = [double(1)]
    try:
        seen.append(double(2))
    except dq.Cancelled as error:
        seen.extend([str(error), double(3)])
    return seen


def test_a_cancel_is_raised_where_the_run_waits_and_ends_what_is_under_way(crew: scripted.Crew) -> None:
    crew.start(undoes)
    crew.complete(crew.until_asked(1)[0])
    second = crew.until_asked(2)[1]
    crew.cancel()
    crew.until(lambda: crew.withdrawn == [second.id])
    live = crew.finish()
    assert live == [2, "run 'run-7': it was cancelled", 6]
    assert len(crew.withdrawn) == 1, "what begins after the cancel is not ended by it"
    replaying.again(crew, live)


def test_a_cancel_that_nobody_catches_ends_the_run_as_cancelled(crew: scripted.Crew) -> None:
    run = crew.start(asks, None)
    crew.until_asked(1)
    crew.cancel()
    with pytest.raises(dq.Cancelled):
        crew.finish()
    assert run.end is not None
    assert getattr(run.end, "state", "") == "cancelled"
    crew.close()
    crew.open().assign()
    with pytest.raises(dq.Cancelled):
        crew.finish()


def test_a_run_that_has_no_time_left_fails(crew: scripted.Crew) -> None:
    run = crew.start(asks, None)
    crew.until_asked(1)
    crew.cancel("it has run out of time")
    with pytest.raises(dq.RunTimeout, match="out of time"):
        crew.finish()
    assert getattr(run.end, "state", "") == "failed"


@dq.workflow
async def undoes_later() -> list[Any]:
    seen: list[Any] = []
    try:
        await asyncio.gather(dq.wait_signal("never"), asyncio.sleep(3600))
    except asyncio.CancelledError:
        seen.append(await asyncio.create_task(_undo()))
    return seen


async def _undo() -> int:
    return double(4)


def test_a_cancel_of_an_async_workflow_is_asyncio_s(crew: scripted.Crew) -> None:
    crew.start(undoes_later)
    steps = list(crew.until_asked(2))
    crew.cancel()
    crew.until(lambda: len(set(crew.withdrawn)) == 2)
    live = crew.finish()
    assert live == [8]
    assert sorted(set(crew.withdrawn)) == [step.id for step in steps]
    replaying.again(crew, live)


def test_an_async_run_that_is_cancelled_ends_as_cancelled(crew: scripted.Crew) -> None:
    run = crew.start(asks_side_by_side)
    crew.until_asked(3)
    crew.cancel()
    with pytest.raises(dq.Cancelled, match="it was cancelled"):
        crew.finish()
    assert getattr(run.end, "state", "") == "cancelled"


def test_a_cancel_comes_at_its_place_among_the_results(crew: scripted.Crew) -> None:
    """The run hears of the first result, then of the cancel: the second result, which was there too, comes after it."""
    crew.start(heard_in_order)
    first, second = crew.until_asked(2)
    crew.close()
    crew.obeys = False
    crew.complete(first, tell=False)
    run = crew.runs[7]
    run.seq += 1
    run.cancel = (run.seq, crew.now, "it was cancelled")
    crew.complete(second, tell=False)
    crew.open().assign()
    assert crew.finish() == [True, False, "cancelled", True]


@dq.workflow
def heard_in_order() -> list[Any]:
    first, second = double.submit(1), double.submit(2)
    seen: list[Any] = []
    first.result()
    seen.extend([first.done(), second.done()])
    try:
        second.result()
    except dq.Cancelled:
        seen.append("cancelled")
        second.result()
    return [*seen, second.done()]


def test_a_run_that_is_taken_away_is_unwound_without_another_step(crew: scripted.Crew) -> None:
    for id, workflow in ((7, stubborn), (8, stubborn_later)):
        crew.start(workflow, id=id)
    crew.until_asked(2)
    crew.forget(7)
    crew.forget(8)
    crew.start(undoes, id=9)
    assert crew.finish(9) == [2, 4]
    assert len(crew.asked) == 4, "neither has asked for anything more"
    assert crew.runs[7].end is None
    assert crew.runs[8].end is None


@dq.workflow
def stubborn() -> int:
    try:
        return double(1)
    finally:
        double(2)


@dq.workflow
async def stubborn_later() -> int:
    async def blocks() -> int:
        try:
            return double(1)  # parks the run in the middle of a task
        finally:
            double(2)

    return await asyncio.create_task(blocks())


def _marks(crew: scripted.Crew) -> int:
    return sum(step.name.startswith(PATCHED) for step in crew.runs[7].steps.values())


@dq.workflow
def before(rounds: int) -> list[Any]:
    return [double(n) for n in range(rounds)]


@dq.workflow
def after(rounds: int) -> list[Any]:
    return [("new", double(n + 100)) if dq.patched("hundreds") else double(n) for n in range(rounds)]


def test_a_new_run_takes_the_new_code_and_says_so_once(crew: scripted.Crew) -> None:
    crew.start(after, 3)
    live = crew.finish()
    assert live == [("new", 200), ("new", 202), ("new", 204)]
    assert _marks(crew) == 1
    replaying.from_every_beginning(crew, live)


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_run_that_was_past_the_change_keeps_to_the_old_code(crew: scripted.Crew, done: int) -> None:
    crew.start(before, 4)
    for count in range(done):
        crew.complete(crew.until_asked(count + 1)[count])
    crew.close()
    crew.open().assign(workflow=after)
    live = crew.finish()
    assert live == [0, 2, 4, 6]
    assert not _marks(crew)
    replaying.again(crew, live)


def test_a_run_that_comes_to_the_change_later_takes_the_new_code(crew: scripted.Crew) -> None:
    crew.start(first_half)
    crew.until_asked(1)
    crew.close()
    crew.open().assign(workflow=second_half)
    live = crew.finish()
    assert live == [2, "new"]
    replaying.from_every_beginning(crew, live)


@dq.workflow
def first_half() -> list[Any]:
    return [double(1), "old"]


@dq.workflow
def second_half() -> list[Any]:
    return [double(1), "new" if dq.patched("words") else "old"]


def test_a_mark_whose_change_is_gone_from_the_code_is_in_nobody_s_way(crew: scripted.Crew) -> None:
    crew.start(marked)
    crew.until(lambda: len(crew.asked) >= 2)
    crew.close()
    crew.open().assign(workflow=marked_anew)
    assert crew.finish() == [2, "new"]


@dq.workflow
def marked() -> int:
    assert dq.patched("old change")
    return double(1)


@dq.workflow
def marked_anew() -> list[Any]:
    return [double(1), "new" if dq.patched("new change") else "old"]
