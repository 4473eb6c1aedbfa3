"""What may be under way at a checkpoint: nothing that the code still wants, and whatever it has let go of."""

from __future__ import annotations

import asyncio

import pytest

import dq
from dq.executor.frames import Deliver
from dq.executor.options import CHECKPOINT, PUBLISH, SLEEP
from dq.model.states import CANCELLED
from tests.unit import scripted
from tests.unit.flowsteps import double


@dq.workflow
def tells(left: int) -> int:
    dq.publish("left", left)
    if left:
        dq.checkpoint(left - 1)
    return left


def test_what_is_published_needs_no_waiting_for(crew: scripted.Crew) -> None:
    crew.obeys = False  # so that nothing published is on disk before somebody says so
    crew.start(tells, 1)
    published, cut = crew.until_asked(2)
    assert (published.name, cut.name) == (PUBLISH, CHECKPOINT)
    crew.complete(published, cut)
    assert crew.finish() == 0


@dq.workflow
def drops(left: int) -> int:
    if not left:
        return 0
    double.submit(1).cancel()
    return dq.checkpoint(left - 1)


@dq.workflow
async def drops_async(left: int) -> int:
    if not left:
        return 0
    task = asyncio.create_task(double_later())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    return dq.checkpoint(left - 1)


async def double_later() -> int:
    return await double.submit(1)


@pytest.mark.parametrize("workflow", [drops, drops_async])
def test_the_end_of_what_was_cancelled_is_waited_for(crew: scripted.Crew, workflow: dq.Workflow[[int], int]) -> None:
    crew.obeys = False
    crew.start(workflow, 1)
    crew.until(lambda: any(step.name != SLEEP for step in crew.asked))
    (step,) = [step for step in crew.asked if step.name != SLEEP]
    crew.complete(*[timer for timer in crew.asked if timer is not step])
    crew.until(lambda: crew.withdrawn)
    crew.rest()
    assert not [step for step in crew.asked if step.name == CHECKPOINT], "a replay would not cancel it again"
    crew.commit([(step, CANCELLED, scripted.failure(dq.Cancelled("cancelled")))])
    crew.until(lambda: crew.asked[-1].name == CHECKPOINT)
    assert crew.finish() == 0


@dq.workflow
def looks(left: int) -> int:
    if left:
        future = double.submit(left)
        dq.wait([future], timeout=60)
        dq.checkpoint(future.result() - 2)
    return left


def test_a_timer_that_is_not_wanted_any_more_is_no_step_under_way(crew: scripted.Crew) -> None:
    crew.obeys = False
    crew.start(looks, 1)
    step, timer = crew.until_asked(2)
    assert timer.name == SLEEP
    crew.complete(step)
    crew.until(lambda: crew.asked[-1].name == CHECKPOINT)
    assert crew.finish() == 0


@dq.workflow
def goes_round(count: int) -> int:
    double(count)
    dq.checkpoint(count + 1)


def test_a_cancel_that_has_come_is_heard_at_the_checkpoint(crew: scripted.Crew) -> None:
    crew.start(goes_round, 1)
    (step,) = crew.until_asked(1)
    crew.commit([(step, *crew.execute(step))], tell=False)
    crew.runs[7].seq += 1
    row = (7, step.id, step.seq, step.status, step.payload, step.at)
    crew._linked().send(Deliver([row, (7, 0, 2, CANCELLED, b"it was cancelled", crew.now + 1)]))
    with pytest.raises(dq.Cancelled):
        crew.finish()
