"""Bodies whose function has a retry policy or limits: each attempt is held to them, and judged.

The judgement is a pure decision of tenacity's objects. It leaves with the outcome; nothing here waits.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import monotonic_ns, perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from dq.errors import StepError
from dq.executor import effects, retrying, signing
from dq.executor.ceiling import Ceiling, resident
from dq.executor.contract import Job, Outcome
from dq.executor.options import Options
from dq.model.payload import DELAY
from dq.model.states import COMPLETED, FAILED, RETRY

if TYPE_CHECKING:
    from dq.executor.envelope import Runner

_SHOWN = 200  # characters of a value that was rejected


class Rules(NamedTuple):
    """What a function's decorator says of its attempts."""

    name: str
    options: Options


class Trials:
    """The entry of jobs whose functions have rules.

    Attributes:
        time: Told (step, nanoseconds of the monotonic clock) when a body with a time limit begins, (0, 0) at its end.
        bloated: Whether this process is much larger than it should be, since a body has reached its memory limit in it.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._rules: dict[int, Rules] = {}
        self.time: Callable[[int, int], None] = lambda _step, _since: None
        self.bloated = False

    def govern(self, number: int, name: str, options: Options) -> bool:
        """Learns a function's rules; False where it has none."""
        if not (options.retry or options.memory or options.timeout):
            self._rules.pop(number, None)
            return False
        self._rules[number] = Rules(name, options)
        return True

    def has(self, number: int) -> bool:
        return number in self._rules

    def entry(self, job: Job) -> Outcome:
        """Runs a job. Never raises."""
        began = time_ns() // 1000
        start = perf_counter_ns()
        rules = self._rules[job.function]
        ceiling = Ceiling(rules.options.memory) if rules.options.memory else None
        if rules.options.timeout:
            self.time(job.step, monotonic_ns())
        try:
            status, payload = self._judged(job, rules, ceiling, began)
        except BaseException as error:  # noqa: BLE001 -- what is wrong with the function or its policy, and not its body
            self._runner.leave_if_copy(error)
            status, payload = FAILED, self._runner.failure(error)
        self._runner.leave_if_copy(None)
        if ceiling is not None and ceiling.reached:
            self._weigh(ceiling)
        if rules.options.timeout:
            self.time(0, 0)
        outcome = Outcome(job.step, status, payload, began, perf_counter_ns() - start)
        return effects.settle(job, outcome) if effects.pending else outcome

    def _judged(self, job: Job, rules: Rules, ceiling: Ceiling | None, began: int) -> tuple[int, bytes]:
        """The attempt, or the judgement of one that nobody has judged yet."""
        tried = job.about.tried if job.about is not None else None
        since = tried.since if tried is not None and tried.since else began
        count = tried.failures if tried is not None else 0
        policy = _load(rules)
        if policy is not None and tried is not None and tried.verdict:
            return _rule(policy, rules, count, since, self._runner.restore(tried.verdict), tried.verdict)
        body = self._runner.prepare(job)
        try:
            if ceiling is None:
                value = body()
            else:
                with ceiling:
                    value = body()
        except BaseException as error:  # noqa: BLE001 -- sys.exit in a body ends the body and not the worker
            self._runner.leave_if_copy(error)
            told = self._runner.failure(error)
            return (FAILED, told) if policy is None else _rule(policy, rules, count + 1, since, error, told)
        if policy is not None and policy.retry is not None:
            rejected = _rejected(policy, rules, count + 1, since, value, self._runner.failure)
            if rejected is not None:
                return rejected
        return COMPLETED, self._runner.packed(job, value)

    def _weigh(self, ceiling: Ceiling) -> None:
        """After a body that wanted too much: whether what it had is given back."""
        gc.collect()
        self.bloated = self.bloated or resident() > ceiling.resident + ceiling.limit // 2


def _load(rules: Rules) -> retrying.Policy | None:
    if not rules.options.retry:
        return None
    try:
        return retrying.unpack(signing.content(signing.POLICY, rules.options.retry, rules.name.encode()))
    except Exception as error:
        error.add_note(f"This is the retry policy of {rules.name}, which can't be loaded where the step runs.")
        raise


def _decide(
    policy: retrying.Policy, rules: Rules, count: int, since: int, error: BaseException | None, value: Any = None
) -> float | None:
    elapsed = max(0, time_ns() // 1000 - since) / 1_000_000
    try:
        return retrying.decide(policy, count, elapsed, error, value)
    except Exception as trouble:
        met = "returned" if error is None else f"failed with {type(error).__name__}"
        trouble.add_note(f"This is the retry policy of {rules.name}, which was asked after the step had {met}.")
        raise


def _rule(
    policy: retrying.Policy, rules: Rules, count: int, since: int, error: BaseException, told: bytes
) -> tuple[int, bytes]:
    """What a failure leads to. The exception that people see in the end is the body's own."""
    wait = _decide(policy, rules, count, since, error)
    if wait is None or wait == retrying.STOPPED:
        return FAILED, told
    return RETRY, DELAY.pack(int(wait * 1_000_000)) + told


def _rejected(
    policy: retrying.Policy, rules: Rules, count: int, since: int, value: Any, fail: Callable[[BaseException], bytes]
) -> tuple[int, bytes] | None:
    """What a result leads to that `retry` does not want, None where it does."""
    wait = _decide(policy, rules, count, since, None, value)
    if wait is None:
        return None
    try:
        shown = repr(value)[:_SHOWN]
    except Exception as error:  # noqa: BLE001 -- a user's repr may raise anything
        shown = f"a {type(value).__name__} whose repr raises {type(error).__name__}"
    text = f"{rules.name} returned {shown}, which its `retry` does not take for a result, in {count} attempts"
    told = fail(StepError("RetryError", text))
    return (FAILED, told) if wait == retrying.STOPPED else (RETRY, DELAY.pack(int(wait * 1_000_000)) + told)
