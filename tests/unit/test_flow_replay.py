"""Runs in a host against a scripted supervisor: what is asked for, in which order results come, what replay does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dq
from tests.unit import scripted
from tests.unit.flowsteps import both, chain, double, fail, fan


def test_a_chain_of_steps(crew: scripted.Crew) -> None:
    crew.start(chain, 5)
    assert crew.finish() == 20
    assert [(step.scope, step.occurrence) for step in crew.asked] == [("0", n) for n in range(5)]


def test_replay_asks_for_nothing_that_is_on_record(crew: scripted.Crew) -> None:
    crew.start(chain, 5)
    for n in range(3):
        crew.complete(crew.until_asked(n + 1)[n])
    crew.until_asked(4)
    crew.close()
    crew.open().assign()
    assert crew.finish() == 20
    assert crew.bodies == 5
    assert [step.occurrence for step in crew.asked] == [4]


def test_a_result_for_a_step_that_was_pending_at_the_replay(crew: scripted.Crew) -> None:
    crew.start(chain, 2)
    step = crew.until_asked(1)[0]
    crew.close()
    crew.open().assign()
    crew.complete(step)
    assert crew.finish() == 2
    assert crew.bodies == 2


def test_a_late_double_of_a_completion_is_ignored(crew: scripted.Crew) -> None:
    run = crew.start(chain, 3)
    step = crew.until_asked(1)[0]
    crew.complete(step)
    crew.until_asked(2)
    crew.commit([(step, 0, crew.codec.dumps(100, "x"))])
    run.seq -= 1
    assert crew.finish() == 6


def test_history_and_delivery_of_the_same_completion(crew: scripted.Crew) -> None:
    crew.start(fan, 3)
    steps = list(crew.until_asked(3))
    crew.complete(steps[1], tell=False)
    crew.close()
    crew.open().assign()
    crew.commit([(steps[1], 0, crew.codec.dumps(100, "x"))])
    crew.complete(steps[0], steps[2])
    assert crew.finish() == [0, 2, 4]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_done_is_true_at_the_same_point_live_and_on_replay(crew: scripted.Crew, order: tuple[int, int]) -> None:
    run = crew.start(both, 1, 2)
    steps = crew.until_asked(2)
    crew.complete(*(steps[n] for n in order))
    live = crew.finish()
    assert live == [2, 4, [(False, False), (True, order == (1, 0))]]
    crew.close()
    crew.open().assign()
    assert crew.finish() == live
    assert not crew.asked
    assert run.end is not None


def test_map_keeps_the_order_whatever_the_order_of_completions(crew: scripted.Crew) -> None:
    crew.start(fan, 10)
    crew.complete(*reversed(crew.until_asked(10)))
    assert crew.finish() == [2 * n for n in range(10)]
    crew.close()
    crew.open().assign()
    assert crew.finish() == [2 * n for n in range(10)]


def test_map_of_nothing(crew: scripted.Crew) -> None:
    crew.start(fan, 0)
    assert crew.finish() == []


def test_map_takes_several_iterables(crew: scripted.Crew) -> None:
    crew.start(powers)
    assert crew.finish() == [1, 8]


@dq.step
def power(base: int, exponent: int) -> int:
    return int(base**exponent)


@dq.workflow
def powers() -> list[int]:
    return power.map([1, 2], (2, 3, 4))


def test_map_over_a_generator_that_calls_steps(crew: scripted.Crew) -> None:
    crew.start(nested)
    assert crew.finish() == [0, 4, 8]
    crew.close()
    crew.open().assign()
    assert crew.finish() == [0, 4, 8]


@dq.workflow
def nested() -> list[int]:
    return double.map(double(n) for n in range(3))


def test_a_large_map_goes_out_in_frames(tmp_path: Path) -> None:
    for crew in scripted.crew(tmp_path, lease=300):  # smaller than the fan-out, so leases come in the midst
        crew.start(fan, 10_000)
        crew.until_asked(10_000)
        assert max(crew.frames) <= 4096
        assert crew.finish() == [2 * n for n in range(10_000)]


def test_map_raises_the_first_failure_and_does_not_wait(crew: scripted.Crew) -> None:
    crew.start(bad_map)
    steps = crew.until_asked(4)
    crew.complete(steps[2], steps[1])
    crew.until(lambda: crew.runs[7].end is not None)
    with pytest.raises(ValueError, match=r"^2$"):
        crew.result()


@dq.step
def fail_odd(n: int) -> int:
    raise ValueError(str(n))


@dq.workflow
def bad_map() -> list[int]:
    return fail_odd.map(range(4))


def test_an_exception_arrives_as_its_type_and_can_be_caught(crew: scripted.Crew) -> None:
    crew.start(catcher)
    assert crew.finish() == ["ValueError: bang", True]
    crew.start(thrower, id=8)
    with pytest.raises(ValueError, match="bang") as caught:
        crew.finish(8)
    assert "in fail" in str(caught.value.__cause__)


@dq.workflow
def catcher() -> list[Any]:
    future = fail.submit("bang")
    try:
        future.result()
    except ValueError as error:
        return [f"{type(error).__name__}: {error}", future.exception() is error]
    return []


@dq.workflow
def thrower() -> None:
    fail("bang")


def test_other_arguments_block_the_run_with_the_difference(crew: scripted.Crew) -> None:
    crew.start(chain, 3)
    crew.complete(crew.until_asked(1)[0])
    crew.until_asked(2)
    crew.close()
    crew.open().assign(workflow=changed_chain)
    reason = crew.blocked()
    assert "double, call 2 in branch 0" in reason
    assert "recorded: double(1)" in reason
    assert "now:      double(10)" in reason
    assert "args[0]: 1 -> 10" in reason


@dq.workflow
def changed_chain(count: int) -> int:
    return sum(double(10 * n) for n in range(count))


def test_a_blocked_run_goes_on_when_the_change_is_undone(crew: scripted.Crew) -> None:
    crew.start(chain, 3)
    crew.complete(crew.until_asked(1)[0])
    crew.until_asked(2)
    crew.close()
    crew.open().assign(workflow=changed_chain)
    crew.blocked()
    crew.assign(workflow=chain)
    assert crew.finish() == 6


def test_a_blocked_run_can_not_go_on_by_catching_everything(crew: scripted.Crew) -> None:
    crew.start(chain, 2)
    crew.complete(crew.until_asked(1)[0])
    crew.until_asked(2)
    crew.close()
    crew.open().assign(workflow=stubborn)
    assert "now:      double(99)" in crew.blocked()
    crew.start(chain, 1, id=8)
    assert crew.finish(8) == 0
    assert len(crew.asked) == 1


@dq.workflow
def stubborn(count: int) -> int:
    try:
        return double(99)
    except BaseException:
        return double(98)
    finally:
        double(97)


def test_removed_and_added_steps_are_tolerated(crew: scripted.Crew) -> None:
    crew.start(chain, 3)
    crew.complete(crew.until_asked(1)[0])
    crew.complete(crew.until_asked(2)[1])
    crew.until_asked(3)
    crew.close()
    crew.open().assign(workflow=shorter)
    assert crew.finish() == 102
    assert len(crew.asked) == 1  # the added one; calls 0 and 1 of double are on record, call 2 is not asked for
    crew.close()
    crew.open().assign(workflow=shorter)
    assert crew.finish() == 102
    assert not crew.asked


@dq.workflow
def shorter(count: int) -> int:
    return double(0) + power(10, 2) + double(1)


def test_many_runs_share_a_frame(crew: scripted.Crew) -> None:
    runs = [crew.start(chain, 2, id=n) for n in range(1, 201)]
    crew.until_asked(200)
    for run in runs:
        crew.complete(*crew.pending(run.id), id=run.id)
    assert [crew.finish(run.id) for run in runs] == [2] * 200
    assert len(crew.frames) < 300
