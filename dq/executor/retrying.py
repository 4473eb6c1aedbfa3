"""Whether a step that failed is tried again, and when: tenacity's objects, asked as pure decisions.

Nobody sleeps here. What `decide` returns is recorded as a due time, and any worker takes the step up then.
"""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tenacity import RetryCallState


LONGEST = 100 * 366 * 86_400.0  # seconds; a longer wait is a mistake
STOPPED = math.inf


class Policy(NamedTuple):
    """tenacity's three questions; None stands for tenacity's own default."""

    stop: Callable[[RetryCallState], bool] | None
    wait: Callable[[RetryCallState], float] | None
    retry: Callable[[RetryCallState], bool] | None


def pack(stop: Any, wait: Any, retry: Any) -> bytes:
    """A policy as it travels; b"" where none is given. Raises NotPicklable."""
    if stop is None and wait is None and retry is None:
        return b""
    import cloudpickle

    from dq.executor.culprit import explain

    policy = Policy(stop, wait, retry)
    try:
        return bytes(cloudpickle.dumps(tuple(policy), protocol=5))
    except Exception as error:
        from dq.errors import NotPicklable

        raise NotPicklable(explain(tuple(policy), "retry policy", error)) from error


@functools.lru_cache(256)
def unpack(packed: bytes) -> Policy:
    """Raises whatever unpickling raises."""
    return Policy(*pickle.loads(packed))


def decide(
    policy: Policy, failures: int, elapsed: float, error: BaseException | None, value: Any = None
) -> float | None:
    """Seconds until the next attempt; None where `retry` is content with what came out, STOPPED where `stop` says so.

    Args:
        policy: What the step's decorator says.
        failures: How many attempts have failed, this one included. Crashes are counted elsewhere.
        elapsed: Seconds since the first of them began.
        error: What the attempt raised; None where it returned `value`.

    Raises:
        ValueError: `wait` wants what is no time that anybody can wait.
        Exception: Whatever the policy's objects raise.
    """
    import tenacity

    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failures
    if error is None:
        state.set_result(value)
    else:
        state.set_exception((type(error), error, error.__traceback__))
    state.outcome_timestamp = state.start_time + elapsed
    retry = policy.retry or tenacity.retry_if_exception_type(Exception)
    if not retry(state):
        return None
    wait = float(policy.wait(state)) if policy.wait is not None else 0.0
    if not wait <= LONGEST:
        raise ValueError(f"wait says {wait} seconds until the next attempt, which is no time that anybody can wait")
    state.upcoming_sleep = wait = max(0.0, wait)
    if policy.stop is not None and policy.stop(state):
        return STOPPED
    return wait
