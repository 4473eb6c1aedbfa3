"""The two workflows that play random programs: one for `def`, one for `async def`, over the same walk through the terms.

The walk is a generator. It yields what is to be asked for, as a function without arguments, and gets back what came of
it; so it does not know whether whoever drives it waits or awaits.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import tenacity

import dq
from dq.cli.chaos import steps
from dq.cli.chaos.programs import PRIME, WIDE, Program, Term, mix

Ask = Callable[[], Any]
Walk = Generator[Ask, Any, Any]
_LONG = 20.0  # seconds; what lasts so long is cancelled

workflow = dq.workflow(max_crashes=1_000_000)


@workflow
def play(log: str, at: str, program: Program, value: int, number: int = 0, child: bool = False) -> int:
    """Plays the first chapter of a program, and goes on with the next one."""
    value = _drive(_walk(log, program[0], value, f"{at}/{number}", child, _Plain))
    if program[1:]:
        dq.checkpoint(log, at, program[1:], value, number + 1, child)
    return value


@workflow
async def play_async(log: str, at: str, program: Program, value: int, number: int = 0, child: bool = False) -> int:
    """The same as `play`."""
    value = await _drive_async(_walk(log, program[0], value, f"{at}/{number}", child, _Async))
    if program[1:]:
        dq.checkpoint(log, at, program[1:], value, number + 1, child)
    return value


@workflow
def branch(log: str, at: str, term: Term, value: int) -> int:
    """Plays one of several terms that go on side by side."""
    return _drive(_walk(log, term, value, at, True, _Plain))


PLAYERS = {"def": play, "async": play_async}


@workflow
def undoing(log: str, at: str, value: int, count: int) -> int:
    """Does some things, and then fails, which undoes them."""
    for number in range(count):
        dq.compensate(steps.undo, log, f"{at}#{number}u")
        steps.item(log, at, value, number)
    raise ValueError(at)


@dq.workflow(max_crashes=1_000_000, timeout=0.05)
def hasty(log: str, at: str) -> int:
    """Has less time than it needs."""
    dq.compensate(steps.undo, log, f"{at}u")
    dq.sleep(_LONG)
    return 0


@workflow
def waiting(log: str, at: str) -> int:
    """Waits for what does not come, until somebody cancels it."""
    dq.compensate(steps.undo, log, f"{at}u")
    dq.sleep(_LONG)
    return 0


def _drive(walk: Walk) -> int:
    """Plays a walk in a `def` workflow."""
    got: Any = None
    error: Exception | None = None
    while True:
        try:
            ask = walk.send(got) if error is None else walk.throw(error)
        except StopIteration as end:
            return int(end.value)
        got = error = None
        try:
            got = ask()
            if isinstance(got, Future):
                got = got.result()
        except Exception as trouble:  # noqa: BLE001 -- the walk's own to deal with
            error = trouble


async def _drive_async(walk: Walk) -> int:
    """Plays a walk in an `async def` workflow."""
    got: Any = None
    error: Exception | None = None
    while True:
        try:
            ask = walk.send(got) if error is None else walk.throw(error)
        except StopIteration as end:
            return int(end.value)
        got = error = None
        try:
            got = ask()
            if inspect.isawaitable(got):
                got = await got
        except Exception as trouble:  # noqa: BLE001 -- the walk's own to deal with
            error = trouble


class _Plain:
    """What differs in a `def` workflow."""

    @staticmethod
    def par(log: str, parts: list[Term], value: int, at: str) -> Any:
        futures = [branch.submit(log, f"{at}.{number}", part, value) for number, part in enumerate(parts)]
        return [future.result() for future in futures]

    @staticmethod
    def each(futures: list[Any]) -> Any:
        first, rest = dq.wait(futures, first=True)
        return sum(future.result() for future in [*first, *dq.as_completed(rest)])

    @staticmethod
    def timer(log: str, at: str) -> Any:
        future = steps.hanging.submit(log, f"{at}#0")
        _, late = dq.wait([future], timeout=0.02)
        for one in late:
            one.cancel()
        return _settle(future)


class _Async:
    """What differs in an `async def` workflow."""

    @staticmethod
    async def par(log: str, parts: list[Term], value: int, at: str) -> Any:
        async with asyncio.TaskGroup() as group:
            walks = [_walk(log, part, value, f"{at}.{number}", True, _Async) for number, part in enumerate(parts)]
            tasks = [group.create_task(_drive_async(walk)) for walk in walks]
        return [task.result() for task in tasks]

    @staticmethod
    async def each(futures: list[Any]) -> Any:
        return sum([await done for done in asyncio.as_completed(futures)])

    @staticmethod
    async def timer(log: str, at: str) -> Any:
        try:
            async with asyncio.timeout(0.02):
                await steps.hanging.submit(log, f"{at}#0")
        except TimeoutError:
            pass


def _settle(future: Any) -> Any:
    """Waits for what was cancelled; whether it ended by that or by itself is nobody's business."""
    try:
        return future.result()
    except dq.Cancelled:
        return None


def _walk(log: str, term: Term, value: int, at: str, child: bool, io: Any) -> Walk:
    word, *rest = term
    match word:
        case "seq":
            for number, part in enumerate(rest[0]):
                value = yield from _walk(log, part, value, f"{at}.{number}", child, io)
            return value
        case "par":
            parts = yield lambda: io.par(log, rest[0], value, at)
            return sum(parts) % PRIME
        case "child":
            how, program = rest
            return (yield lambda: PLAYERS[how].submit(log, f"{at}c", program, value, 0, True))
        case "signal" if not child:
            payload = yield lambda: dq.wait_signal(at)
            return (value + payload) % PRIME
        case "signal" | "self":
            yield lambda: dq.signal(dq.current().run, at, mix(0, at))
            payload = yield lambda: dq.wait_signal(at)
            return (value + payload) % PRIME
        case "map" | "each" | "io" | "queued":
            return (yield from _fan(log, word, rest[0], value, at, io))
        case "drop":
            yield from _drop(log, rest[0], at, io)
            return value
        case _:
            return (yield from _LEAVES[word](log, value, at, *rest))


def _fan(log: str, word: str, count: int, value: int, at: str, io: Any) -> Walk:
    step = {"queued": steps.queued, "io": steps.threaded}.get(word, steps.item)
    if word == "map":
        found = yield lambda: step.map([log] * count, [at] * count, [value] * count, range(count))
        return sum(found) % PRIME
    futures = [step.submit(log, at, value, number) for number in range(count)]
    if word == "each":
        return (yield lambda: io.each(futures)) % PRIME
    total = 0
    for future in futures:
        total += yield lambda future=future: future  # type: ignore[misc]
    return total % PRIME


def _drop(log: str, what: str, at: str, io: Any) -> Generator[Ask, Any, None]:
    if what == "timer":
        yield lambda: io.timer(log, at)
        return
    if what == "queued":
        futures: list[Any] = [steps.clogging.submit(log, at, number) for number in range(WIDE)]
    elif what == "child":
        futures = [waiting.submit(log, at)]
    elif what == "delayed":
        futures = [steps.hanging.options(delay=timedelta(seconds=_LONG)).submit(log, f"{at}#0")]
    else:
        futures = [steps.hanging.submit(log, f"{at}#0")]
    yield lambda: dq.sleep(0.003)  # so that what is to be cancelled may have begun
    for future in futures:
        future.cancel()
    for future in futures:
        try:
            yield lambda future=future: future  # type: ignore[misc]
        except dq.Cancelled:
            pass


def _one(step: Callable[..., Any]) -> Callable[..., Walk]:
    def walk(log: str, value: int, at: str, *rest: int) -> Walk:
        return (yield lambda: step(log, at, value, *rest))

    return walk


def _sleep(_log: str, value: int, at: str, ms: int) -> Walk:
    yield lambda: dq.sleep(ms / 1000)
    return mix(value, at)


def _late(_log: str, value: int, at: str, ms: int) -> Walk:
    try:
        yield lambda: dq.wait_signal(f"never {at}", timeout=ms / 1000)
    except dq.SignalTimeout:
        return mix(value, at)
    raise RuntimeError(f"{at}: a signal came that nobody has sent")


def _publish(_log: str, value: int, at: str) -> Walk:
    yield lambda: dq.publish(at, value)
    yield lambda: dq.patched(at)
    return mix(value, at)


def _tell(log: str, value: int, at: str) -> Walk:
    yield lambda: steps.tell.submit(log, at, dq.current().run)
    payload = yield lambda: dq.wait_signal(at)
    return (value + payload) % PRIME


def _retry(log: str, value: int, at: str, failures: int) -> Walk:
    step = steps.retried.options(stop=tenacity.stop_after_attempt(failures + 1))
    return (yield lambda: step.submit(log, at, value, failures))


def _fail(log: str, value: int, at: str, failures: int) -> Walk:
    step = steps.failing.options(stop=tenacity.stop_after_attempt(failures))
    try:
        yield lambda: step.submit(log, at)
    except ValueError:
        return mix(value, at)
    raise RuntimeError(f"{at}: a step that fails has not failed")


def _slow(log: str, value: int, at: str) -> Walk:
    try:
        yield lambda: steps.slow.submit(log, at)
    except dq.StepTimeout:
        return mix(value, at)
    raise RuntimeError(f"{at}: a step that takes too long was not stopped")


def _dedup(log: str, value: int, at: str) -> Walk:
    step = steps.add.options(dedup=at, dedup_for=_LONG * 100)
    first, second = step.submit(log, at, value), step.submit(log, at, value)
    one = yield lambda: first
    other = yield lambda: second
    if one != other:
        raise RuntimeError(f"{at}: one step came to {one} and {other}")
    return int(one)


def _deadline(log: str, value: int, at: str) -> Walk:
    try:
        yield lambda: hasty.submit(log, at)
    except dq.RunTimeout:
        return mix(value, at)
    raise RuntimeError(f"{at}: a run that takes too long was not stopped")


def _undo(log: str, value: int, at: str, count: int) -> Walk:
    try:
        yield lambda: undoing.submit(log, at, value, count)
    except ValueError:
        return mix(value, at, count)
    raise RuntimeError(f"{at}: a run that fails has not failed")


def _delay(log: str, value: int, at: str, ms: int) -> Walk:
    return (yield lambda: steps.add.options(delay=ms / 1000).submit(log, at, value))


def _big(log: str, value: int, at: str, size: int) -> Walk:
    data = yield lambda: steps.make.submit(size)
    return (yield lambda: steps.weigh.submit(log, at, value, data, size))


def _draw(log: str, value: int, at: str) -> Walk:
    rows = yield steps.count.submit
    told = [dq.random(), str(dq.uuid4()), dq.now().isoformat(), rows]
    made, back = yield lambda: steps.echo.submit(log, at, value, told)
    if back != told:
        raise RuntimeError(f"{at}: {back} came back for {told}")
    return int(made)


_LEAVES: dict[str, Callable[..., Walk]] = {
    "step": _one(steps.add.submit),
    "crash": _one(steps.crashing.submit),
    "write": _one(steps.write.submit),
    "cursor": _one(steps.cursor.submit),
    "dedup": _dedup,
    "deadline": _deadline,
    "order": _one(steps.order.submit),
    "sleep": _sleep,
    "late": _late,
    "publish": _publish,
    "tell": _tell,
    "retry": _retry,
    "fail": _fail,
    "slow": _slow,
    "undo": _undo,
    "delay": _delay,
    "big": _big,
    "draw": _draw,
}
