"""The runner: whatever a body does, there is one outcome."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dq.errors import NotImportable, NotPicklable, StepError
from dq.executor import current
from dq.executor.codec import Codec
from dq.executor.contract import Job, Outcome
from dq.executor.envelope import Runner
from dq.executor.functions import define
from dq.model.payload import FILE
from dq.model.states import COMPLETED, FAILED


def add(left: int, *, right: int) -> int:
    return left + right


async def add_later(left: int, *, right: int) -> int:
    await asyncio.sleep(0)
    return left + right


def step_id() -> int:
    return current.current().step


def leave() -> NoReturn:
    raise SystemExit(4)


def large() -> bytes:
    return bytes(1 << 20)


class Bench:
    """A runner and what it takes to use it."""

    def __init__(self, folder: str) -> None:
        self.codec = Codec(folder)
        self.runner = Runner(self.codec)

    def run(self, function: Any, *args: Any, step: int = 5, **kwargs: Any) -> Outcome:
        self.runner.define(define(1, function, kind="step"))
        return Job(9, step, 1, 1, self.codec.dumps((args, kwargs), "a5"), self.runner.entry).run()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(str(tmp_path / "F.db.blobs"))


@pytest.mark.parametrize("function", [add, add_later])
def test_a_value_is_completed(bench: Bench, function: Any) -> None:
    before = time.time_ns() // 1000
    outcome = bench.run(function, 1, right=2)
    assert (outcome.step, outcome.status) == (5, COMPLETED)
    assert bench.codec.loads(outcome.payload) == 3
    assert before <= outcome.began_at <= time.time_ns() // 1000
    assert outcome.busy > 0


@pytest.mark.parametrize(
    ("function", "args", "kind"),
    [
        (leave, (), StepError),
        (add, (), TypeError),
        (threading.Lock, (), NotPicklable),
        (int, ("x",), ValueError),
        (asyncio.sleep, ("soon",), TypeError),
    ],
)
def test_anything_else_is_failed(bench: Bench, function: Any, args: tuple[Any, ...], kind: type[Exception]) -> None:
    outcome = bench.run(function, *args)
    assert outcome.status == FAILED
    assert type(bench.codec.restore(outcome.payload)) is kind


def test_large_results_lie_aside_under_the_steps_name(bench: Bench) -> None:
    outcome = bench.run(large, step=77)
    assert outcome.payload[:1] == FILE
    assert b"s77-e9-" in outcome.payload
    assert bench.codec.loads(outcome.payload) == bytes(1 << 20)


def test_a_function_that_does_not_resolve_fails_each_time(bench: Bench) -> None:
    for _ in range(2):
        outcome = Job(9, 5, 1, 44, b"", bench.runner.entry).run()
        assert isinstance(bench.codec.restore(outcome.payload), NotImportable)


def test_a_number_may_be_defined_anew(bench: Bench) -> None:
    assert bench.codec.loads(bench.run(add, 1, right=2).payload) == 3
    assert bench.codec.loads(bench.run(step_id).payload) == 5


def test_threads_do_not_see_each_others_attempts(bench: Bench) -> None:
    bench.runner.define(define(1, step_id, kind="step"))
    meet = threading.Barrier(8)
    found: dict[int, int] = {}

    def work(step: int) -> None:
        meet.wait(30)
        for _ in range(200):
            outcome = Job(9, step, 1, 1, bench.codec.dumps(((), {}), "a"), bench.runner.entry).run()
            if bench.codec.loads(outcome.payload) != step:
                return
        found[step] = 200

    threads = [threading.Thread(target=work, args=(step,)) for step in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == dict.fromkeys(range(8), 200)


def test_outside_of_a_body_nothing_is_current() -> None:
    failed: list[type[BaseException]] = []

    def ask() -> None:
        try:
            current.current()
        except LookupError as error:
            failed.append(type(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(30)
    assert failed == [LookupError]


def test_the_key_of_a_step_differs_from_file_to_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "_home", "")
    token = current.running.set(Job(9, 5, 1, 1, b"", lambda job: Outcome(job.step, 0, b"", 0, 0)))
    try:
        keys = set()
        for home in ("a.db", "b.db"):
            current.settle(home)
            keys |= {current.current().idempotency_key for _ in range(2)}
        assert len(keys) == 2
    finally:
        current.running.reset(token)
