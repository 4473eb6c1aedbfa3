"""Durable timers in a host against a scripted supervisor: asyncio's tools and dq's own, live and on replay."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import dq
from dq.executor.options import SLEEP
from tests.unit import replaying, scripted
from tests.unit.flowsteps import double, fail

START = datetime.fromtimestamp(scripted.NOW / 1_000_000, UTC)


@dq.step
async def later(n: int) -> int:
    return 2 * n


@dq.workflow
def sleeper(seconds: float) -> list[float]:
    before = dq.now()
    dq.sleep(timedelta(seconds=seconds))
    return [(before - START).total_seconds(), round((dq.now() - START).total_seconds(), 3)]


def test_a_sleep_takes_its_time_and_the_run_s_clock_goes_with_it(crew: scripted.Crew) -> None:
    crew.start(sleeper, 3600)
    (timer,) = crew.until_asked(1)
    assert (timer.name, timer.due) == (SLEEP, scripted.NOW + 3_600_000_000)
    live = crew.finish()
    assert live == [0.0, 3600.0]
    replaying.again(crew, live)


def test_a_sleep_on_record_keeps_its_due_time_whatever_the_code_says_now(crew: scripted.Crew) -> None:
    crew.start(changing, 3600)
    due = crew.until_asked(1)[0].due
    crew.close()
    crew.runs[7].args = crew.codec.dumps(((5,), {}), "a7")
    crew.open().assign()
    assert crew.finish() == 5
    assert [step.due for step in crew.runs[7].steps.values()] == [due]


@dq.workflow
def changing(seconds: float) -> float:
    dq.sleep(seconds)
    return seconds


def test_nothing_ends_in_the_past(crew: scripted.Crew) -> None:
    crew.start(backwards)
    with pytest.raises(ValueError, match="in the past"):
        crew.finish()


@dq.workflow
def backwards() -> None:
    dq.sleep(-1)


@dq.workflow
async def async_sleeper() -> list[float]:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.sleep(60)
    await dq.sleep(60)
    return [round(loop.time() - before, 3), round((dq.now() - START).total_seconds(), 3)]


def test_asyncio_sleeps_durably(crew: scripted.Crew) -> None:
    crew.start(async_sleeper)
    live = crew.finish()
    assert live == [120.0, 120.0]
    replaying.again(crew, live)
    assert not crew.withdrawn, "a timer that has fired is not asked to end"


@dq.workflow
async def sorted_by_sleep(spans: list[float]) -> list[float]:
    woken: list[float] = []

    async def one(span: float) -> None:
        await asyncio.sleep(span)
        woken.append(span)

    await asyncio.gather(*map(one, spans))
    return woken


def test_timers_fire_in_the_order_in_which_they_are_due(crew: scripted.Crew) -> None:
    crew.start(sorted_by_sleep, [30, 10, 20, 0, 5])
    live = crew.finish()
    assert live == [0, 5, 10, 20, 30]
    replaying.from_every_beginning(crew, live)


@dq.workflow
async def timed(kind: str, span: float | None) -> str:
    try:
        if kind == "timeout":
            async with asyncio.timeout(span):
                return f"got {await later(1)}"
        return f"got {await asyncio.wait_for(later(1), span)}"
    except TimeoutError:
        return f"too late, {await later(5)}"


@pytest.mark.parametrize("kind", ["timeout", "wait_for"])
def test_a_timeout_that_passes_ends_the_step(crew: scripted.Crew, kind: str) -> None:
    crew.start(timed, kind, 30)
    steps = crew.until_asked(2)
    timer = next(step for step in steps if step.name == SLEEP)
    (step,) = [step for step in steps if step is not timer]
    crew.complete(timer)
    crew.until(lambda: crew.withdrawn == [step.id])
    live = crew.finish()
    assert live == "too late, 10"
    replaying.from_every_beginning(crew, live)


@pytest.mark.parametrize("kind", ["timeout", "wait_for"])
def test_a_timeout_that_is_not_needed_is_withdrawn(crew: scripted.Crew, kind: str) -> None:
    crew.start(timed, kind, 30)
    steps = crew.until_asked(2)
    timer = next(step for step in steps if step.name == SLEEP)
    live = crew.finish()
    assert live == "got 2"
    crew.until(lambda: crew.withdrawn == [timer.id])
    replaying.again(crew, live)


@dq.workflow
async def fails_in_a_group() -> list[str]:
    told: list[str] = []

    async def waits(span: float) -> None:
        try:
            await asyncio.sleep(span)
        except asyncio.CancelledError:
            told.append(f"{span} was cut off")
            raise

    async def breaks() -> None:
        await asyncio.sleep(5)
        raise ValueError("broken")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits(3600))
            group.create_task(breaks())
            group.create_task(waits(1800))
    except* ValueError as error:
        told.append(str(error.exceptions[0]))
    return told


def test_a_task_group_cancels_timers(crew: scripted.Crew) -> None:
    crew.start(fails_in_a_group)
    live = crew.finish()
    assert live == ["3600 was cut off", "1800 was cut off", "broken"]
    crew.until(lambda: len(crew.withdrawn) == 2)
    replaying.from_every_beginning(crew, live)


@dq.workflow
async def hedged() -> list[Any]:
    """Asks a second time when the first answer takes long."""
    first = asyncio.ensure_future(later(1))
    done, _ = await asyncio.wait([first], timeout=10)
    if done:
        return ["first", first.result()]
    second = asyncio.ensure_future(later(2))
    (winner, *_), losers = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    for loser in losers:
        loser.cancel()
    return ["second" if winner is second else "first, after all", winner.result()]


@pytest.mark.parametrize(("late", "expected"), [(0, ["first, after all", 2]), (1, ["second", 4])])
def test_the_quicker_of_two_wins(crew: scripted.Crew, late: int, expected: list[Any]) -> None:
    crew.start(hedged)
    crew.until_asked(2)
    crew.complete(*(step for step in crew.pending() if step.name == SLEEP))
    crew.until_asked(3)
    steps = [step for step in crew.runs[7].steps.values() if step.name != SLEEP]
    crew.complete(steps[late])
    live = crew.finish()
    assert live == expected
    replaying.from_every_beginning(crew, live)


@dq.workflow
async def each_with_a_timeout() -> list[Any]:
    seen: list[Any] = []
    try:
        for task in asyncio.as_completed([later(n) for n in range(3)], timeout=10):
            seen += [await task]
    except TimeoutError:
        seen.append("late")
    return seen


def test_as_completed_gives_up_in_time(crew: scripted.Crew) -> None:
    crew.start(each_with_a_timeout)
    steps = list(crew.until_asked(4))
    timer = next(step for step in steps if step.name == SLEEP)
    steps.remove(timer)
    crew.complete(steps[2], steps[0], timer)
    live = crew.finish()
    assert live == [4, 0, "late"]
    replaying.from_every_beginning(crew, live)


@dq.workflow
def waits(first: bool, timeout: float | None) -> list[Any]:
    futures = [double.submit(n) for n in range(4)]
    done, rest = dq.wait(futures, first=first, timeout=timeout)
    return [[futures.index(future) for future in done], [futures.index(future) for future in rest]]


@pytest.mark.parametrize(
    ("first", "timeout", "order", "expected"),
    [
        (True, None, [2], [[2], [0, 1, 3]]),
        (True, 10, [2], [[2], [0, 1, 3]]),
        (True, 10, ["time"], [[], [0, 1, 2, 3]]),
        (False, 10, [3, 1, "time"], [[1, 3], [0, 2]]),
        (False, 10, [3, 1, 0, 2], [[0, 1, 2, 3], []]),
        (False, None, [3, 1, 0, 2], [[0, 1, 2, 3], []]),
    ],
)
def test_waiting_for_some_futures(
    crew: scripted.Crew, first: bool, timeout: float | None, order: list[Any], expected: list[Any]
) -> None:
    crew.start(waits, first, timeout)
    steps = list(crew.until_asked(4 + (timeout is not None)))
    crew.complete(*(steps[4 if number == "time" else number] for number in order))
    live = crew.finish()
    assert live == expected
    replaying.from_every_beginning(crew, live)


@dq.workflow
def one_after_the_other(timeout: float | None) -> list[Any]:
    futures = [double.submit(n) for n in range(4)]
    seen: list[Any] = []
    try:
        for future in dq.as_completed(futures, timeout=timeout):
            seen.extend([futures.index(future), double(10 + len(seen))])
    except TimeoutError as error:
        seen.append("4 futures" in str(error))
    return seen


def test_futures_as_they_are_done(crew: scripted.Crew) -> None:
    crew.start(one_after_the_other, None)
    steps = list(crew.until_asked(4))
    crew.complete(*(steps[number] for number in (3, 0, 2, 1)))
    live = crew.finish()
    assert live == [3, 20, 0, 24, 2, 28, 1, 32]
    replaying.from_every_beginning(crew, live)


def test_futures_that_are_not_done_in_time(crew: scripted.Crew) -> None:
    crew.start(one_after_the_other, 10)
    steps = list(crew.until_asked(5))
    crew.complete(steps[1], steps[4])
    crew.complete(crew.until_asked(6)[5])
    live = crew.finish()
    assert live == [1, 20, True]
    replaying.from_every_beginning(crew, live)


@dq.workflow
def gathers() -> list[Any]:
    slow, bad = double.submit(1), fail.submit("bad")
    try:
        return list(dq.gather(slow, bad))
    except ValueError as error:
        return [str(error), slow.done(), slow.result()]


def test_gather_raises_the_first_failure_and_lets_the_rest_go_on(crew: scripted.Crew) -> None:
    crew.start(gathers)
    crew.complete(crew.until_asked(2)[1])
    live = crew.finish()
    assert live == ["bad", False, 2]
    replaying.from_every_beginning(crew, live)


def test_gather_keeps_the_order_of_its_arguments(crew: scripted.Crew) -> None:
    crew.start(gathers_well)
    crew.complete(*reversed(crew.until_asked(3)))
    assert crew.finish() == [[0, 2, 4], []]


@dq.workflow
def gathers_well() -> list[Any]:
    return [dq.gather(*(double.submit(n) for n in range(3))), dq.gather()]


@dq.workflow
def impatient() -> list[Any]:
    future = double.submit(1)
    tries = 0
    while True:
        try:
            return [tries, future.result(timeout=10), future.exception(timeout=10)]
        except TimeoutError:
            tries += 1


def test_a_result_that_does_not_come_in_time_is_late_on_each_replay(crew: scripted.Crew) -> None:
    crew.start(impatient)
    step, first = crew.until_asked(2)
    crew.complete(first)
    crew.complete(crew.until_asked(3)[2])
    crew.until_asked(4)
    crew.complete(step)
    live = crew.finish()
    assert live == [2, 2, None]
    replaying.from_every_beginning(crew, live)


@dq.workflow
async def cut_off() -> str:
    future = double.submit(1)
    assert future.cancel()
    try:
        await future
    except dq.Cancelled:
        return "cancelled"
    return "went through"


def test_a_future_that_is_cancelled_ends_its_step(crew: scripted.Crew) -> None:
    crew.start(cut_off)
    crew.rest()
    live = crew.finish()
    assert live == "cancelled"
    assert len(crew.withdrawn) == 1
    replaying.from_every_beginning(crew, live)


def test_sleeps_and_waits_are_plain_outside_of_a_run() -> None:
    sleeper(0)
    asyncio.run(_plain())
    assert abs((datetime.now(UTC) - dq.now()).total_seconds()) < 5
    assert dq.patched("anything")
    with pytest.raises(dq.DqError, match="no run is running"):
        dq.wait_signal("go")


async def _plain() -> None:
    await dq.sleep(0)
