"""Async workflows: asyncio's own tools on the deterministic loop, scopes, and what the loop refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import dq
from tests.unit import scripted


@dq.step
async def double(n: int) -> int:
    return 2 * n


@dq.step
def triple(n: int) -> int:
    return 3 * n


@dq.step
async def fail(text: str) -> int:
    raise ValueError(text)


def check_replay(crew: scripted.Crew, workflow: Any, *args: Any) -> Any:
    """Runs a workflow live, then twice from its record, and expects the same each time."""
    crew.start(workflow, *args)
    live = crew.finish()
    bodies = crew.bodies
    for _ in range(2):
        crew.close()
        crew.open().assign()
        assert crew.finish() == live
        assert not crew.asked
    assert crew.bodies == bodies
    return live


@dq.workflow
async def chain(n: int) -> int:
    n = await double(n)
    n = triple(n)
    return await triple.submit(n) + await double(n)


def test_steps_of_both_kinds_in_a_row(crew: scripted.Crew) -> None:
    assert check_replay(crew, chain, 1) == 18 + 12
    assert {step.scope for step in crew.runs[7].steps.values()} == {"0"}


async def branch(n: int) -> int:
    return await double(await double(n))


@dq.workflow
async def gathered() -> list[int]:
    return list(await asyncio.gather(*(branch(n) for n in range(4))))


def test_gather_numbers_its_branches(crew: scripted.Crew) -> None:
    assert check_replay(crew, gathered) == [0, 4, 8, 12]
    asked = [(step.scope, step.occurrence) for step in crew.runs[7].steps.values()]
    assert asked[:4] == [("0.1", 0), ("0.2", 0), ("0.3", 0), ("0.4", 0)]
    assert sorted(asked[4:]) == [("0.1", 1), ("0.2", 1), ("0.3", 1), ("0.4", 1)]


@dq.workflow
async def grouped() -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(double(n)) for n in range(3)]
        inner = group.create_task(nested())
    return [task.result() for task in tasks] + [inner.result()]


async def nested() -> int:
    first = asyncio.create_task(double(10))
    second = asyncio.create_task(double(20))
    return await first + await second


def test_task_groups_and_nested_tasks(crew: scripted.Crew) -> None:
    assert check_replay(crew, grouped) == [0, 2, 4, 60]
    assert {step.scope for step in crew.runs[7].steps.values()} == {"0.1", "0.2", "0.3", "0.4.1", "0.4.2"}


@dq.workflow
async def failing_group() -> str:
    text = ""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail("bang"))
            group.create_task(double(1))
    except* ValueError as group_error:
        text = str(group_error.exceptions[0])
    return text


def test_a_failure_in_a_task_group(crew: scripted.Crew) -> None:
    assert check_replay(crew, failing_group) == "bang"


@dq.workflow
async def race() -> list[int]:
    tasks = [asyncio.create_task(double(n)) for n in range(4)]
    order: list[int] = []
    waiting = set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        order.extend(task.result() for task in done)
        order.append(await double(100))
    return order


@dq.workflow
async def as_completed() -> list[int]:
    results = []
    for task in asyncio.as_completed([double(n) for n in range(4)]):
        results.append(await task)
        results.append(triple(results[-1]))
    return results


@pytest.mark.parametrize("workflow", [race, as_completed])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_what_depends_on_the_order_is_the_same_on_replay(
    crew: scripted.Crew, workflow: Any, order: tuple[int, ...]
) -> None:
    crew.start(workflow)
    steps = list(crew.until_asked(4))
    assert [step.scope for step in steps] == ["0.1", "0.2", "0.3", "0.4"]
    crew.complete(*(steps[n] for n in order))
    live = crew.finish()
    assert live[0] == 2 * order[0]
    crew.close()
    crew.open().assign()
    assert crew.finish() == live
    assert not crew.asked


@dq.workflow
async def parked_inside(n: int) -> list[int]:
    async def blocking(n: int) -> int:
        return triple(n)  # parks the whole run in the middle of a task

    return list(await asyncio.gather(blocking(n), double(n), blocking(n + 1)))


def test_plain_calls_inside_tasks_of_several_runs(crew: scripted.Crew) -> None:
    for id in range(1, 21):
        crew.start(parked_inside, id, id=id)
    crew.until(lambda: len(crew.asked) >= 20)
    for id in range(20, 0, -1):
        assert crew.finish(id) == [3 * id, 2 * id, 3 * id + 3]


@dq.workflow
async def left_over() -> str:
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await double(5)

    asyncio.create_task(endless())  # noqa: RUF006 -- the loop holds its tasks
    await double(1)
    return "done"


def test_what_is_left_of_the_tasks_is_cancelled_at_the_end(crew: scripted.Crew) -> None:
    assert check_replay(crew, left_over) == "done"
    assert len(crew.runs[7].steps) == 2


@dq.workflow
async def hopeless() -> None:
    await asyncio.Event().wait()


def test_waiting_for_nothing_fails_the_run(crew: scripted.Crew) -> None:
    crew.start(hopeless)
    with pytest.raises(dq.DqError, match="nothing can bring about"):
        crew.finish()


@dq.workflow
async def yields() -> list[int]:
    seen: list[int] = []

    async def count(n: int) -> None:
        for _ in range(3):
            seen.append(n)
            await asyncio.sleep(0)

    await asyncio.gather(count(1), count(2))
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce() -> None:
        for n in range(3):
            await queue.put(await double(n))

    async with asyncio.timeout(None):
        task = asyncio.create_task(produce())
        seen += [await queue.get() for _ in range(3)]
        await task
    return seen


def test_sleep_zero_queues_and_locks(crew: scripted.Crew) -> None:
    assert check_replay(crew, yields) == [1, 2, 1, 2, 1, 2, 0, 2, 4]


async def in_a_thread() -> None:
    await asyncio.to_thread(print)


async def connecting() -> None:
    await asyncio.open_connection("localhost", 1)


async def spawning() -> None:
    await asyncio.create_subprocess_exec("true")


async def watching() -> None:
    asyncio.get_running_loop().add_reader(0, print)


async def signalling() -> None:
    asyncio.get_running_loop().add_signal_handler(10, print)


_REFUSED = [in_a_thread, connecting, spawning, watching, signalling]


@dq.workflow
async def refused(number: int) -> str:
    try:
        await _REFUSED[number]()
    except NotImplementedError as error:
        return str(error)
    return "was allowed"


@pytest.mark.parametrize("number", range(len(_REFUSED)), ids=[body.__name__ for body in _REFUSED])
def test_what_can_not_be_replayed_is_refused(crew: scripted.Crew, number: int) -> None:
    crew.start(refused, number)
    assert "put " in crew.finish()


@dq.workflow
async def mapped() -> list[int]:
    return double.map(range(5))


def test_map_of_an_async_step(crew: scripted.Crew) -> None:
    assert check_replay(crew, mapped) == [0, 2, 4, 6, 8]


@dq.workflow
async def changed() -> list[int]:
    return list(await asyncio.gather(*(branch(n + 1) for n in range(4))))


def test_other_arguments_block_an_async_run(crew: scripted.Crew) -> None:
    crew.start(gathered)
    crew.until_asked(4)
    crew.close()
    crew.open().assign(workflow=changed)
    assert "double, call 1 in branch 0.1" in crew.blocked()
    crew.assign(workflow=gathered)
    assert crew.finish() == [0, 4, 8, 12]


@dq.workflow
async def draws() -> list[Any]:
    async def draw(n: int) -> float:
        await double(n)
        return dq.random()

    return [*await asyncio.gather(draw(1), draw(2)), dq.uuid4()]


def test_chance_is_drawn_by_branch(crew: scripted.Crew) -> None:
    live = check_replay(crew, draws)
    assert len(set(live)) == 3


def test_steps_run_plainly_outside_a_run() -> None:
    assert asyncio.run(double(4)) == 8
    assert triple(2) == 6
    assert triple.map([1, 2]) == [3, 6]
    with pytest.raises(dq.DqError, match=r"engine\.submit"):
        triple.submit(1)
    with pytest.raises(dq.DqError, match=r"asyncio\.gather"):
        double.map([1])
