"""By the million: what a program hands over faster than it is done waits in the file, and fills nobody's memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import dq
from tests.process import flows, misfits
from tests.process.crews import rows
from tests.process.memory import MIB, peak, peaks, reset
from tests.waiting import wait_until

MILLION = 1_000_000


@pytest.mark.parametrize("count", [100_000, pytest.param(MILLION, marks=pytest.mark.soak)])
def test_a_workflow_that_fans_out_to_a_million(engine: dq.Engine, count: int) -> None:
    run = engine.start(misfits.million, count)
    assert run.result(110) == count * (count - 1)
    assert run.progress() == (count, count)
    found = peaks(engine)
    assert found["supervisor"] < 250 * MIB
    assert found["host"] < 300 * MIB
    assert found["worker"] < 60 * MIB


@pytest.mark.soak
def test_a_map_over_a_million(engine: dq.Engine) -> None:
    """A generator is drawn from as the results are taken: what lies between the two is some thousands."""
    drawn = taken = ahead = 0

    def numbers() -> Iterator[int]:
        nonlocal drawn
        for number in range(MILLION):
            drawn = number
            yield number

    before = reset()
    for taken, result in enumerate(engine.map(misfits.double, numbers())):
        assert result == 2 * taken
        ahead = max(ahead, drawn - taken)
    assert taken == MILLION - 1
    assert ahead < 20_000
    assert peak(os.getpid()) - before < 60 * MIB
    found = peaks(engine)
    assert found["supervisor"] < 150 * MIB
    assert found["worker"] < 60 * MIB


def test_a_map_over_an_endless_generator(engine: dq.Engine) -> None:
    def numbers() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    results = engine.map(misfits.double, numbers())
    assert [next(results) for _ in range(10_000)] == [2 * number for number in range(10_000)]
    del results  # nobody wants the rest
    wait_until(lambda: engine.census().pending == 0)


def test_large_results_that_nobody_takes_yet(engine: dq.Engine) -> None:
    """The window follows their size: some are under way, and not all."""
    drawn = 0

    def sizes() -> Iterator[int]:
        nonlocal drawn
        while drawn < 1000:
            drawn += 1
            yield 200_192

    before = reset()
    results = engine.map(misfits.many_bytes, sizes())
    for _ in range(500):
        assert len(next(results)) == 200_192
    assert peak(os.getpid()) - before < 150 * MIB
    assert peaks(engine)["supervisor"] < 250 * MIB
    assert drawn < 1000
    del results


def test_a_client_that_submits_far_more_than_anybody_can_hold(tmp_path: Path) -> None:
    """100 MB of arguments for a step that does not come to its end: they wait in the file."""
    count, filler = 100_000, b"x" * 1000
    with dq.Engine(tmp_path / "f.db", workers=1, grace=0.0) as engine:
        first = engine.submit(flows.held, str(tmp_path), "first", 1)
        wait_until(lambda: flows.begins(tmp_path, "first"))
        before = reset()
        for number in range(count):
            engine.submit(misfits.length, filler + b"%d" % number)
        engine.flush()
        assert peak(os.getpid()) - before < 150 * MIB
        assert peaks(engine)["supervisor"] < 200 * MIB
        assert engine.census().pending > count - 1000
        assert rows(engine.path, "SELECT count(*) FROM dq_step WHERE length(args) > 1000") == [(count,)]
        assert not first.done()


def test_submit_waits_while_too_many_steps_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a future costs in the client is bounded too: who submits is held until some of them have their result."""
    monkeypatch.setattr("dq.client.pump.OPEN_MAX", 4000)
    futures: list[dq.Future[int]] = []
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        held = engine.submit(flows.held, str(tmp_path), "first", 1)
        wait_until(lambda: flows.begins(tmp_path, "first"))

        def submit() -> None:
            for number in range(20_000):
                futures.append(engine.submit(misfits.double, number))  # noqa: PERF401 -- the main thread looks at it

        thread = threading.Thread(target=submit)
        thread.start()
        wait_until(lambda: engine._line.waiting)
        wait_until(lambda: engine.census().pending > 3000)
        assert len(futures) < 8000
        (tmp_path / "open-first").touch()
        thread.join(60)
        assert held.result(20) == 10
        assert [future.result(60) for future in futures] == [2 * number for number in range(20_000)]
