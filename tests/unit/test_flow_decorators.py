"""Decorated functions: what stays of the function, how they travel, and what is refused."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from typing import Any, assert_type

import cloudpickle
import pytest

import dq
from dq.executor import functions
from dq.executor.contract import Job
from dq.executor.current import running
from dq.flow import decorators, registry


@dq.step
def add(a: int, b: int = 1) -> int:
    """Adds."""
    return a + b


@dq.step(name="plus", executor="threads", max_crashes=5)
def named(a: int) -> int:
    return a + 1


@dq.step
async def fetch(url: str) -> bytes:
    return url.encode()


@dq.workflow
def total(count: int) -> int:
    return sum(add.map(range(count))) + add(0)


@dq.workflow(name="nightly")
async def nightly(url: str) -> bytes:
    return await fetch(url)


def test_the_function_stays_what_it_was() -> None:
    assert (add.__name__, add.__doc__, add.__module__) == ("add", "Adds.", __name__)
    assert add(1) == 2
    assert add(1, b=5) == 6
    assert total(3) == 1 + 2 + 3 + 1
    assert asyncio.run(nightly("x")) == b"x"
    assert (named.name, named.executor, named.max_crashes) == ("plus", "threads", 5)
    assert "add" in repr(add)


def test_the_types_are_the_function_s() -> None:
    """Held by the type checkers, which read this file too."""
    assert_type(add(1), int)
    assert_type(add.map([1]), list[int])
    assert_type(total(1), int)
    with pytest.raises(TypeError):
        add("x", c=1)  # type: ignore[call-arg,arg-type]


def types_inside_a_run() -> None:
    """Read by the type checkers only: these calls need a run."""
    assert_type(add.submit(1, b=2), dq.Future[int])
    assert_type(fetch.submit("x"), dq.Future[bytes])
    assert_type(fetch.map(["x"]), list[bytes])
    assert_type(add.options(executor="x").submit(1), dq.Future[int])
    add.submit("x")  # type: ignore[arg-type]


def test_a_decorated_function_travels_by_reference() -> None:
    assert pickle.loads(pickle.dumps(add)) is add
    assert pickle.loads(pickle.dumps(total)) is total
    assert functions.describe(add) == (f"{__name__}:add", b"")


def test_one_with_other_options_travels_with_them() -> None:
    other = add.options(executor="gpu")
    back = pickle.loads(pickle.dumps(other))
    assert (back.executor, back(1)) == ("gpu", 2)
    assert back.__dq_body__ is add.__dq_body__
    assert functions.describe(other) == functions.describe(add)


def test_a_closure_travels_by_value() -> None:
    n = 5

    @dq.step(executor="x")
    def local(m: int) -> int:
        return local(m - 1) + n if m else 0

    back = pickle.loads(cloudpickle.dumps(local))
    assert (back(2), back.executor) == (10, "x")


def test_what_can_not_be_decorated_is_refused() -> None:
    with pytest.raises(TypeError, match="decorates functions"):
        dq.step(5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="decorated already"):
        dq.step(add)
    with pytest.raises(TypeError, match="colour"):
        dq.step(colour=1)(add.__dq_body__)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="max_crashes"):
        dq.step(max_crashes=0)(add.__dq_body__)


def test_a_method_is_refused_and_a_static_one_is_not() -> None:
    with pytest.raises(RuntimeError) as caught:

        class Bad:  # pyright: ignore[reportUnusedClass]
            @dq.step
            def method(self) -> None: ...

    assert "is a method" in str(caught.value.__cause__)

    class Good:
        @staticmethod
        @dq.step
        def method(n: int) -> int:
            return n

    assert Good.method(3) == 3


def test_a_step_in_the_body_of_a_step_is_a_plain_call_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decorators, "_warned", False)
    token = running.set(Job(1, 1, 1, 1, b"", lambda job: job.run()))
    try:
        with pytest.warns(RuntimeWarning, match="plain call"):
            assert add(1) == 2
        assert add(2) == 3
    finally:
        running.reset(token)


def test_a_named_step_is_found_by_its_reference() -> None:
    told = registry.define(3, named)
    assert (told.name, told.executor, told.max_crashes, told.kind) == ("plus", "threads", 5, "step")
    assert functions.resolve(told.name, told.code) is named.__dq_body__
    assert registry.define(9, named).digest == told.digest
    assert registry.define(9, named.options(executor="")).digest != told.digest


def test_functions_are_introduced_once() -> None:
    sent: list[Any] = []
    known = registry.Registry(sent.append)
    first = known.find(add)
    assert known.find(add) is first
    assert known.find(add.options()).number == first.number
    assert known.find(add.options(executor="x")).number != first.number
    assert [message.number for message in sent] == [1, 2]


def test_chance_outside_a_run_is_chance() -> None:
    assert dq.random() != dq.random()
    assert dq.uuid4() != dq.uuid4()
    with pytest.raises(LookupError):
        dq.current()


def test_importing_dq_is_light() -> None:
    code = "import dq, sys; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    heavy = {"asyncio", "tenacity", "rich", "click", "apsw", "psutil", "inspect", "logging", "msgspec", "greenlet"}
    assert not heavy & set(told.stdout.split())
