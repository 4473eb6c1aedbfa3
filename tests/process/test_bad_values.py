"""Arguments and results that can't travel: the error names the way to the culprit, and the engine goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import dq
from tests.process import misfits

LOCK = r"cannot pickle '_thread\.lock' object"


@pytest.mark.parametrize(
    ("argument", "where"),
    [
        (threading.Lock(), r"args\[0\]"),
        ({"a": [1, {"b": threading.Lock()}]}, r"args\[0\]\['a'\]\[1\]\['b'\]"),
        (misfits.Report(), r"args\[0\]\.rows\[3\]\.lock"),
    ],
    ids=["itself", "in-a-dict", "in-an-attribute"],
)
def test_arguments(engine: dq.Engine, argument: Any, where: str) -> None:
    with pytest.raises(dq.NotPicklable, match=f"{where}: {LOCK}"):
        engine.submit(misfits.double, argument)
    with pytest.raises(dq.NotPicklable, match=f"{where}: {LOCK}"):
        engine.start(misfits.doubled, argument, id="r")
    with pytest.raises(dq.NotPicklable, match=f"{where}: {LOCK}"):
        list(engine.map(misfits.double, [1, argument]))
    with pytest.raises(dq.NoSuchRun):
        engine.get("r")
    assert engine.submit(misfits.double, 2).result(20) == 4


def test_arguments_of_an_executors_call_fail_its_future(tmp_path: Path) -> None:
    with dq.Executor(tmp_path / "f.db", max_workers=1) as pool:
        future = pool.submit(misfits.length, data=[threading.Lock()])  # type: ignore[arg-type]
        with pytest.raises(dq.NotPicklable, match=rf"kwargs\['data'\]\[0\]: {LOCK}"):
            future.result(20)
        lock = threading.Lock()
        with pytest.raises(dq.NotPicklable, match=rf"closes over lock\): {LOCK}"):
            pool.submit(lambda: lock).result(20)
        with pytest.raises(dq.NotPicklable, match=rf"result\.rows\[3\]\.lock: {LOCK}"):
            pool.submit(misfits.Report).result(20)
        with pytest.raises(dq.NotPicklable, match=rf"args\[0\]: {LOCK}"):
            list(pool.map(misfits.double, [1, lock]))
        assert pool.submit(misfits.double, 2).result(20) == 4


def test_results(engine: dq.Engine) -> None:
    with pytest.raises(dq.NotPicklable, match=rf"result\['rows'\]\[1\]: {LOCK}"):
        engine.submit(misfits.makes_a_lock).result(20)
    with pytest.raises(dq.NotPicklable, match=rf"result\['rows'\]\[1\]: {LOCK}"):
        engine.start(misfits.locked_step).result(20)
    with pytest.raises(dq.NotPicklable, match=rf"args\[0\]: {LOCK}"):
        engine.start(misfits.locked_argument).result(20)
    run = engine.start(misfits.locked_result)
    with pytest.raises(dq.NotPicklable, match=rf"result\.rows\[3\]\.lock: {LOCK}"):
        run.result(20)
    assert run.status == "failed"
    assert engine.submit(misfits.double, 2).result(20) == 4


def test_a_workflow_may_catch_it_and_go_on(engine: dq.Engine) -> None:
    assert engine.start(misfits.cautious).result(20) == 42


def test_what_raises_while_it_is_pickled(engine: dq.Engine) -> None:
    with pytest.raises(dq.NotPicklable, match=r"result\['shy'\]: ZeroDivisionError: not today"):
        engine.submit(misfits.makes_a_shy_one).result(20)
    with pytest.raises(dq.NotPicklable, match=r"args\[0\]: ZeroDivisionError: not today"):
        engine.submit(misfits.same, misfits.Shy())


def test_what_is_nested_too_deeply(engine: dq.Engine, tmp_path: Path) -> None:
    nest = misfits.nest()
    with pytest.raises(dq.NotPicklable, match=r"args\[1\]: nested too deeply .* flatter"):
        engine.submit(max, 1, nest)
    with pytest.raises(dq.NotPicklable, match=r"args\[0\]: nested too deeply"):
        engine.start(misfits.doubled, nest, id="r")
    misfits.take_apart(nest)
    for step in (misfits.too_deep, misfits.too_long):
        with pytest.raises(dq.NotPicklable, match="result: nested too deeply"):
            engine.submit(step).result(20)
    with pytest.raises(dq.NotPicklable, match=r"args\[0\]: nested too deeply"):
        engine.start(misfits.deep_argument).result(20)
    with pytest.raises(dq.NotPicklable, match="result: nested too deeply"):
        engine.start(misfits.deep_result).result(20)
    with dq.Executor(tmp_path / "f.db") as pool, pytest.raises(dq.NotPicklable, match="nested too deeply"):
        pool.submit(misfits.too_deep).result(20)
    assert engine.submit(misfits.double, 2).result(20) == 4
