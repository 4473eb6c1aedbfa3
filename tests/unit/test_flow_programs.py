"""Random workflows see the same, in the same order and at the same time, live and from every beginning of their record."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dq
from dq.executor.options import WAIT_SIGNAL
from tests.unit import replaying, scripted
from tests.unit.scripted import Crew

Op = tuple[Any, ...]

_spans = st.integers(0, 30)
_values = st.integers(0, 9)
_leaves: st.SearchStrategy[Op] = st.one_of(
    st.tuples(st.just("step"), _values),
    st.tuples(st.just("fail"), _values),
    st.tuples(st.just("sleep"), _spans),
    st.tuples(st.just("signal"), st.sampled_from("ab"), _spans),
)


def _branches(inner: st.SearchStrategy[Op]) -> st.SearchStrategy[Op]:
    bodies = st.lists(inner, min_size=1, max_size=2)
    several = st.lists(bodies, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.just("gather"), several),
        st.tuples(st.just("group"), several),
        st.tuples(st.just("first"), several),
        st.tuples(st.just("each"), several),
        st.tuples(st.just("timeout"), _spans, bodies),
        st.tuples(st.just("wait_for"), _spans, bodies),
    )


_async_programs = st.lists(st.recursive(_leaves, _branches, max_leaves=5), min_size=1, max_size=3)

_sync_programs = st.lists(
    st.one_of(
        _leaves,
        st.tuples(st.just("submit"), _values),
        st.tuples(st.just("result"), _values),
        st.tuples(st.just("within"), _values, _spans),
        st.tuples(st.just("cancel"), _values),
        st.tuples(st.just("wait"), st.booleans(), st.none() | _spans),
        st.tuples(st.just("each"), st.none() | _spans),
    ),
    min_size=1,
    max_size=8,
)


@dq.step
def double(n: int) -> int:
    return 2 * n


@dq.step
def fail(n: int) -> int:
    raise ValueError(f"no {n}")


Trace = list[Any]


@dq.workflow
async def interpret(program: list[Op]) -> Trace:
    trace: Trace = []
    try:
        await _body(program, trace, "")
    except Exception as error:
        trace.append(_told(error))
    return trace


async def _body(program: list[Op], trace: Trace, place: str) -> int:
    for number, op in enumerate(program):
        here = f"{place}/{number}"
        try:
            trace.append((here, dq.now().timestamp(), await _ASYNC[op[0]](trace, here, *op[1:])))
        except asyncio.CancelledError:
            trace.append((here, "cancelled"))
            raise
        except (ValueError, TimeoutError, ExceptionGroup) as error:
            trace.append((here, dq.now().timestamp(), _told(error)))
    return len(trace)


async def _step(trace: Trace, here: str, n: int) -> int:
    return await double.submit(n)


async def _fail(trace: Trace, here: str, n: int) -> int:
    return await fail.submit(n)


async def _sleep(trace: Trace, here: str, span: int) -> None:
    await asyncio.sleep(span)


async def _signal(trace: Trace, here: str, name: str, span: int) -> Any:
    return await dq.wait_signal(name, timeout=span or None)


async def _gather(trace: Trace, here: str, several: list[list[Op]]) -> list[Any]:
    return await asyncio.gather(*_coros(trace, here, several))


async def _group(trace: Trace, here: str, several: list[list[Op]]) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coro) for coro in _coros(trace, here, several)]
    return [task.result() for task in tasks]


async def _first(trace: Trace, here: str, several: list[list[Op]]) -> list[bool]:
    tasks = [asyncio.ensure_future(coro) for coro in _coros(trace, here, several)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    done = [task.done() for task in tasks]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return done


async def _each(trace: Trace, here: str, several: list[list[Op]]) -> list[int]:
    return [await task for task in asyncio.as_completed(list(_coros(trace, here, several)), timeout=20)]


async def _timeout(trace: Trace, here: str, span: int, program: list[Op]) -> int:
    async with asyncio.timeout(span):
        return await _body(program, trace, here)


async def _wait_for(trace: Trace, here: str, span: int, program: list[Op]) -> int:
    return await asyncio.wait_for(_body(program, trace, here), span)


def _coros(trace: Trace, here: str, several: list[list[Op]]) -> list[Any]:
    return [_body(program, trace, f"{here}.{number}") for number, program in enumerate(several)]


_ASYNC: dict[str, Callable[..., Any]] = {
    "step": _step, "fail": _fail, "sleep": _sleep, "signal": _signal, "gather": _gather, "group": _group,
    "first": _first, "each": _each, "timeout": _timeout, "wait_for": _wait_for,
}  # fmt: skip


def _told(error: BaseException) -> str:
    inner = getattr(error, "exceptions", ())
    return f"{type(error).__name__}{[_told(one) for one in inner] if inner else ''}"


@dq.workflow
def interpret_plainly(program: list[Op]) -> Trace:
    trace: Trace = []
    futures: list[Any] = [double.submit(100)]
    for op in program:
        try:
            told = _plain(op, futures)
        except (ValueError, TimeoutError, dq.Cancelled) as error:
            told = _told(error)
        trace.append((op[0], dq.now().timestamp(), told, [future.done() for future in futures]))
    return trace


def _plain(op: Op, futures: list[Any]) -> Any:
    match op:
        case "step", n:
            return double(n)
        case "fail", n:
            return fail(n)
        case "sleep", span:
            return dq.sleep(span)
        case "signal", name, span:
            return dq.wait_signal(name, timeout=span or None)
        case "submit", n:
            futures.append((double if n % 3 else fail).submit(n))
        case "result", n:
            return futures[n % len(futures)].result()
        case "within", n, span:
            return futures[n % len(futures)].result(span)
        case "cancel", n:
            return futures[n % len(futures)].cancel()
        case "wait", first, span:
            done, rest = dq.wait(futures, first=first, timeout=span)
            return [futures.index(future) for future in done], [futures.index(future) for future in rest]
        case "each", span:
            return [futures.index(future) for future in dq.as_completed(futures, timeout=span)]
        case _:
            raise AssertionError(op)
    return None


def _live(crew: Crew, choice: Random) -> Any:
    """Ends what is under way in any order, timers too."""
    while True:
        crew.rest()
        if crew.runs[replaying.RUN].end is not None:
            return crew.result()
        step = choice.choice(crew.pending())
        if step.name != WAIT_SIGNAL:
            crew.complete(step)
        elif step.due and choice.random() < 0.5:
            crew.time_out(step)
        else:
            crew.commit([(step, 0, crew.codec.dumps(None, "g1"))])


def _check(workflow: Any, program: list[Op], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for crew in scripted.crew(Path(folder)):
            crew.start(workflow, program)
            replaying.from_every_beginning(crew, _live(crew, Random(seed)))


_limits = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_limits
@given(_async_programs, st.integers(0, 1000))
def test_async_workflows(program: list[Op], seed: int) -> None:
    _check(interpret, program, seed)


@_limits
@given(_sync_programs, st.integers(0, 1000))
def test_plain_workflows(program: list[Op], seed: int) -> None:
    _check(interpret_plainly, program, seed)
