"""Runs in a host against a scripted supervisor: what a workflow may not do, and what it may."""

from __future__ import annotations

from typing import Any

import pytest

import dq
from dq.executor import frames
from tests.unit import scripted
from tests.unit.flowsteps import chain, double


def test_a_workflow_that_is_not_there_blocks_the_run(crew: scripted.Crew) -> None:
    crew.start(chain, 1)
    told = crew.defines.popitem()[1]
    crew.close()
    crew.defines[told.digest] = frames.Define(told.number, "no.such:thing", "workflow", told.digest, b"", "", 3)
    crew.open().assign()
    assert "no.such" in crew.blocked()


def test_a_result_that_can_not_be_pickled_fails_the_run(crew: scripted.Crew) -> None:
    crew.start(unpicklable)
    with pytest.raises(dq.NotPicklable, match=r"result\['lock'\]"):
        crew.finish()


@dq.workflow
def unpicklable() -> Any:
    import threading

    return {"lock": threading.Lock()}


def test_an_argument_that_can_not_be_pickled_raises_at_the_call(crew: scripted.Crew) -> None:
    crew.start(bad_argument)
    assert crew.finish() == 2


@dq.workflow
def bad_argument() -> int:
    import threading

    try:
        double(threading.Lock())  # type: ignore[arg-type]
    except dq.NotPicklable:
        return double(1)
    return 0


def test_sys_exit_in_a_workflow_fails_the_run_only(crew: scripted.Crew) -> None:
    crew.start(leaver)
    with pytest.raises(dq.StepError, match="SystemExit"):
        crew.finish()
    crew.start(chain, 1, id=8)
    assert crew.finish(8) == 0


@dq.workflow
def leaver() -> None:
    raise SystemExit(3)


def test_random_and_uuid_are_the_same_on_replay(crew: scripted.Crew) -> None:
    crew.start(chance)
    first = crew.finish()
    assert 0 <= first[0] < 1
    assert first[0] != first[1]
    crew.close()
    crew.open().assign()
    assert crew.finish() == first
    crew.start(chance, id=8)
    assert crew.finish(8) != first


@dq.workflow
def chance() -> list[Any]:
    info = dq.current()
    return [dq.random(), dq.random(), dq.uuid4(), info.run, info.idempotency_key]


def test_callbacks_run_in_the_run(crew: scripted.Crew) -> None:
    crew.start(with_callback)
    assert crew.finish() == [2, 20]
    crew.close()
    crew.open().assign()
    assert crew.finish() == [2, 20]
    assert not crew.asked


@dq.workflow
def with_callback() -> list[int]:
    heard: list[int] = []

    def hear(future: Any) -> None:
        heard.append(future.result())
        heard.append(double(10))

    first, second = double.submit(1), double.submit(2)
    first.add_done_callback(hear)
    second.result()
    return heard


def test_a_thread_of_a_workflow_can_not_ask_for_steps(crew: scripted.Crew) -> None:
    crew.start(threaded)
    assert "thread" in crew.finish()


@dq.workflow
def threaded() -> str:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return str(pool.submit(double, 1).exception())


def test_waiting_with_concurrent_futures_is_refused(crew: scripted.Crew) -> None:
    crew.start(waiter)
    assert "concurrent.futures.wait" in crew.finish()


@dq.workflow
def waiter() -> str:
    from concurrent.futures import wait

    try:
        wait([double.submit(1)])
    except RuntimeError as error:
        return str(error)
    return ""


def test_a_damaged_result_blocks_the_run(crew: scripted.Crew) -> None:
    crew.start(chain, 1)
    crew.commit([(crew.until_asked(1)[0], 0, b"p1234oops")])
    assert "DamagedPayload" in crew.blocked()


def test_a_step_with_a_name_of_its_own(crew: scripted.Crew) -> None:
    crew.start(named)
    assert crew.finish() == 6
    assert {message.name for message in crew.defines.values()} >= {"triple"}


@dq.step(name="triple")
def thrice(n: int) -> int:
    return 3 * n


@dq.workflow
def named() -> int:
    return thrice(2)


def test_a_lambda_step_and_a_closure(crew: scripted.Crew) -> None:
    crew.start(local_steps, 5)
    assert crew.finish() == [6, 10]


@dq.workflow
def local_steps(n: int) -> list[int]:
    plus = dq.step(lambda m: m + n)

    @dq.step
    def times(m: int) -> int:
        return m * n

    return [plus(1), times(2)]


def test_replay_is_linear(crew: scripted.Crew) -> None:
    """Hundred thousand recorded steps: a quadratic replay would run into the limit of `until`."""
    run = crew.start(chain, 100_000)
    template = crew.until_asked(1)[0]
    crew.close()
    from dq.flow.fingerprint import fingerprint

    for n in range(100_000):
        payload = crew.codec.dumps(2 * n, "x")
        args = crew.codec.dumps(((n,), {}), "x")
        run.steps[template.id + n] = scripted.StepOnRecord(
            template.id + n, template.function, "0", n, fingerprint((n,), {}), args, n + 1, 0, payload
        )
    crew.open().assign()
    assert crew.finish() == 99_999 * 100_000
    assert not crew.asked
