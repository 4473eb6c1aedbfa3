"""Attempts under rules: what a policy makes of them, and what a limit does."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
import tenacity

from dq.errors import MemoryExceeded, NotImportable, StepError, StepTimeout
from dq.executor import failures, progress, retrying
from dq.executor.ceiling import Ceiling, size
from dq.executor.codec import Codec
from dq.executor.contract import About, Job, Outcome
from dq.executor.current import current
from dq.executor.envelope import Runner
from dq.executor.frames import Try
from dq.executor.functions import define
from dq.executor.options import Options, pack
from dq.model.payload import DELAY
from dq.model.states import COMPLETED, FAILED, RETRY

MIB = 1 << 20
POLICY: dict[str, Any] = {"stop": tenacity.stop_after_attempt(3), "wait": tenacity.wait_fixed(1.5)}
hoard: list[bytes] = []


class Ruled(NamedTuple):
    status: int
    delay: int | None  # microseconds
    error: BaseException | None
    value: Any


class Bench:
    """Runs functions under options, one attempt at a time."""

    def __init__(self, folder: str) -> None:
        self.codec = Codec(folder)
        self.runner = Runner(self.codec)

    def job(self, function: Callable[..., Any], *args: Any, tried: Try | None = None, **options: Any) -> Job:
        retry = retrying.pack(*[options.pop(name, None) for name in ("stop", "wait", "retry")])
        told = pack(Options(retry=retry, **options))
        self.runner.define(define(1, function, kind="step", options=told))
        payload = self.codec.dumps((args, {}), "a5")
        about = None if tried is None else About("", tried)
        return Job(9, 5, 1, 1, payload, self.runner.entry_of(1), about)

    def run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Ruled:
        outcome: Outcome = self.job(function, *args, **options).run()
        payload, delay = outcome.payload, None
        if outcome.status == RETRY:
            (delay,), payload = DELAY.unpack_from(payload), payload[DELAY.size :]
        if outcome.status == COMPLETED:
            return Ruled(COMPLETED, None, None, self.codec.loads(payload))
        return Ruled(outcome.status, delay, self.codec.restore(payload), None)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(str(tmp_path / "F.db.blobs"))


def fail(kind: type[BaseException] = ValueError) -> NoReturn:
    raise kind("no luck")


def give(value: Any) -> Any:
    return value


def allocate(count: int) -> int:
    return len(bytearray(count))


def keep() -> NoReturn:
    while True:
        hoard.append(b"x" * (8 * MIB))


def tried(failures: int, *, since: float = 1.0, verdict: bytes = b"", cursor: bytes = b"") -> Try:
    """What came of earlier attempts, the first of which began `since` seconds ago."""
    return Try(5, failures, time.time_ns() // 1000 - int(since * 1_000_000), cursor, verdict)


def test_without_rules_the_entry_is_the_short_one(bench: Bench) -> None:
    assert bench.job(give, 1).entry == bench.runner.entry
    assert bench.job(give, 1, timeout=1).entry == bench.runner.trials.entry
    assert bench.job(give, 1).entry == bench.runner.entry, "a number may be defined anew"


def test_a_failure_is_followed_by_another_attempt_until_stop(bench: Bench) -> None:
    for count in (0, 1):
        ruled = bench.run(fail, tried=tried(count), **POLICY)
        assert (ruled.status, ruled.delay, type(ruled.error)) == (RETRY, 1_500_000, ValueError)
    ruled = bench.run(fail, tried=tried(2), **POLICY)
    assert ruled.status == FAILED
    assert type(ruled.error) is ValueError, "what people see is the body's own exception"


def test_a_result_needs_no_policy(bench: Bench) -> None:
    assert bench.run(give, 7, **POLICY) == (COMPLETED, None, None, 7)


def test_the_time_since_the_first_attempt_counts_for_stop_and_wait(bench: Bench) -> None:
    stop, wait = tenacity.stop_after_delay(10), tenacity.wait_exponential(multiplier=2)
    assert bench.run(fail, tried=tried(2, since=9), stop=stop, wait=wait).delay == 8_000_000
    assert bench.run(fail, tried=tried(2, since=11), stop=stop, wait=wait).status == FAILED
    assert bench.run(fail, stop=stop, wait=wait).delay == 2_000_000


@pytest.mark.parametrize(
    ("kind", "retry", "status"),
    [
        (ValueError, None, RETRY),
        (SystemExit, None, FAILED),
        (KeyboardInterrupt, None, FAILED),
        (SystemExit, tenacity.retry_if_exception_type(SystemExit), RETRY),
        (ValueError, tenacity.retry_if_exception_type(OSError), FAILED),
        (FileNotFoundError, tenacity.retry_if_exception_type(OSError), RETRY),
    ],
)
def test_which_exceptions_are_tried_again(bench: Bench, kind: type[Exception], retry: Any, status: int) -> None:
    assert bench.run(fail, kind, retry=retry, **POLICY).status == status


def test_a_result_that_retry_rejects(bench: Bench) -> None:
    retry = tenacity.retry_if_result(lambda value: value is None)
    assert bench.run(give, 0, retry=retry, **POLICY).status == COMPLETED
    ruled = bench.run(give, None, retry=retry, **POLICY)
    assert (ruled.status, ruled.delay) == (RETRY, 1_500_000)
    ruled = bench.run(give, None, tried=tried(2), retry=retry, **POLICY)
    assert ruled.status == FAILED
    assert isinstance(ruled.error, StepError)
    assert ruled.error.type_name == "RetryError"
    assert "give returned None" in ruled.error.text
    assert "3 attempts" in ruled.error.text


def test_what_is_wrong_around_the_body_is_not_tried_again(bench: Bench) -> None:
    assert bench.run(threading.Lock, **POLICY).status == FAILED, "a result that can't travel never will"
    job = bench.job(fail, **POLICY)
    bench.runner._defines.clear()
    bench.runner._functions.clear()
    assert isinstance(bench.codec.restore(job.run().payload), NotImportable)


class Broken:
    """A policy that raises."""

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        raise LookupError("there is no policy for this")


def test_a_policy_that_raises_fails_the_step_with_its_error(bench: Bench) -> None:
    ruled = bench.run(fail, stop=Broken())
    assert ruled.status == FAILED
    assert isinstance(ruled.error, LookupError)
    assert "the retry policy of" in str(ruled.error.__cause__)
    assert "ValueError: no luck" in str(ruled.error.__cause__)


@pytest.mark.parametrize("wait", [float("inf"), float("nan"), 1e20])
def test_a_wait_without_end_is_an_error(bench: Bench, wait: float) -> None:
    ruled = bench.run(fail, wait=lambda _state: wait)
    assert (ruled.status, type(ruled.error)) == (FAILED, ValueError)
    assert bench.run(fail, wait=lambda _state: -1.0).delay == 0


def test_a_policy_that_cannot_be_loaded_fails_the_step_before_its_body(bench: Bench) -> None:
    bench.runner.define(define(1, hoard.append, kind="step", options=pack(Options(retry=b"garbage"))))
    job = Job(9, 5, 1, 1, bench.codec.dumps(((b"ran",), {}), "a"), bench.runner.entry_of(1))
    outcome = job.run()
    assert outcome.status == FAILED
    assert "which can't be loaded" in failures.read(outcome.payload).traceback
    assert not hoard


def test_an_attempt_that_took_too_long_is_judged_before_the_body_runs(bench: Bench) -> None:
    verdict = failures.pack(StepTimeout("too long"))
    ruled = bench.run(hoard.append, b"ran", tried=tried(1, verdict=verdict), **POLICY)
    assert (ruled.status, ruled.delay, type(ruled.error)) == (RETRY, 1_500_000, StepTimeout)
    ruled = bench.run(hoard.append, b"ran", tried=tried(3, verdict=verdict), **POLICY)
    assert (ruled.status, type(ruled.error)) == (FAILED, StepTimeout)
    assert not hoard


def test_a_body_with_a_time_limit_is_announced(bench: Bench) -> None:
    told: list[tuple[int, int]] = []
    bench.runner.trials.time = lambda step, since: told.append((step, since))
    before = time.monotonic_ns()
    assert bench.run(give, 1, timeout=10**6).value == 1
    assert [step for step, _ in told] == [5, 0]
    assert before <= told[0][1] <= time.monotonic_ns()


def test_too_much_memory(bench: Bench) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    ruled = bench.run(allocate, 192 * MIB, memory=64 * MIB)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert ruled.status == FAILED
    assert isinstance(ruled.error, MemoryExceeded)
    assert isinstance(ruled.error, MemoryError)
    assert "64 MiB" in str(ruled.error)
    assert not bench.runner.trials.bloated
    assert bench.run(allocate, 192 * MIB).value == 192 * MIB, "the limit is gone"


def test_what_fits_under_the_ceiling(bench: Bench) -> None:
    assert bench.run(allocate, 16 * MIB, memory=128 * MIB).value == 16 * MIB


def test_a_failure_for_want_of_memory_may_be_tried_again(bench: Bench) -> None:
    assert bench.run(allocate, 192 * MIB, memory=64 * MIB, **POLICY).status == RETRY


def test_a_body_that_keeps_what_it_has_taken_bloats_its_process(bench: Bench) -> None:
    try:
        assert isinstance(bench.run(keep, memory=96 * MIB).error, MemoryExceeded)
        assert bench.runner.trials.bloated
    finally:
        hoard.clear()


def test_an_older_limit_holds_inside_of_a_ceiling() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    lower = size() + 512 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (lower, before[1]))
    try:
        with Ceiling(1 << 40):
            assert resource.getrlimit(resource.RLIMIT_AS)[0] == lower
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == lower
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_what_earlier_attempts_have_left(bench: Bench) -> None:
    cursor = bench.codec.dumps({"page": 3}, "c")
    assert bench.run(lambda: current().cursor, tried=tried(0, cursor=cursor), timeout=10**6).value == {"page": 3}
    assert bench.run(lambda: current().cursor, timeout=10**6).value is None


def test_progress_is_sent_with_the_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int, bytes]] = []
    monkeypatch.setattr(progress, "_send", None)
    monkeypatch.setattr(progress, "_pid", 0)
    assert "can't be sent from this process" in str(bench.run(progress.tell, 1).error)
    progress.connect(lambda job, payload: sent.append((job.step, job.epoch, payload)))
    bench.run(progress.tell, {"page": 4})
    assert [(step, epoch, bench.codec.loads(payload)) for step, epoch, payload in sent] == [(5, 9, {"page": 4})]
    ruled = bench.run(progress.tell, bytes(300_000))
    assert isinstance(ruled.error, ValueError)
    assert "300" in str(ruled.error)
    assert len(sent) == 1
