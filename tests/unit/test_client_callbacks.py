"""The connection of a client: how it holds back, what callbacks may do, and how steps are cancelled."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from dq.client import pump
from dq.client.connection import Connection
from dq.client.steps import StepFuture
from dq.executor import frames
from tests.unit.standin import Standin, connected, submit
from tests.waiting import wait_until


def double(number: int) -> int:
    return number * 2


def fail(text: str) -> None:
    raise ValueError(text)


def test_submit_waits_while_too_much_is_not_on_disk(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "UNACKED_MAX", 1 << 20)
    supervisor = Standin(db, acks=False, works=False)
    with connected(db) as line:
        futures: list[StepFuture[Any]] = []
        done = threading.Event()

        def flood() -> None:
            futures.extend([submit(line, len, bytes(3000)) for _ in range(2000)])
            done.set()

        threading.Thread(target=flood, daemon=True).start()
        wait_until(lambda: line._pump.full and line.waiting)
        assert line._pump.accounts.outbox.size < 5 << 20
        assert not done.is_set()
        supervisor.acks = True
        supervisor.send(frames.Acked(len(supervisor.of(frames.Submit))))
        assert done.wait(20)
        line.flush()
        supervisor.work()
        assert futures[-1].result(20) == 3000
    supervisor.die()


def test_submit_waits_while_too_many_steps_are_open(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "OPEN_MAX", 100)
    supervisor = Standin(db, works=False)
    with connected(db) as line:
        done = threading.Event()

        def flood() -> None:
            for number in range(5000):
                submit(line, double, number)
            done.set()

        threading.Thread(target=flood, daemon=True).start()
        wait_until(lambda: line._pump.full and line.waiting)
        assert not done.is_set()
        assert line.census().pending == 2  # questions are still answered
        supervisor.works = True
        supervisor.work()
        assert done.wait(20)
    supervisor.die()


def test_a_callback_may_submit_however_much_is_open(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "OPEN_MAX", 0)
    supervisor = Standin(db)
    supervisor.block = 7  # so that it must ask for ids as well
    with connected(db) as line:
        more: list[StepFuture[Any]] = []
        ready = threading.Event()

        def again(_: Any) -> None:
            more.extend([submit(line, double, number) for number in range(50)])
            ready.set()

        submit(line, double, 1).add_done_callback(again)
        assert ready.wait(20)
        assert [future.result(20) for future in more] == [2 * number for number in range(50)]
    supervisor.die()


def test_a_callback_may_hold_a_lock_that_a_submitter_has(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "OPEN_MAX", 10)
    supervisor = Standin(db)
    lock = threading.RLock()  # where the result is there already, the callback runs at once
    with connected(db) as line:

        def count(_: Any) -> None:
            with lock:
                pass

        futures = []
        for number in range(3000):
            with lock:
                futures.append(submit(line, double, number))
                futures[-1].add_done_callback(count)
        assert futures[-1].result(20) == 2 * 2999
    supervisor.die()


def test_callbacks_run_in_the_connections_thread_and_see_the_result(line: Connection, supervisor: Standin) -> None:
    supervisor.works = False
    seen: list[Any] = []
    ready = threading.Event()

    def look(future: Any) -> None:
        seen.extend([future.result(), threading.current_thread().name])
        ready.set()

    submit(line, double, 5).add_done_callback(look)
    line.flush()
    supervisor.work()
    assert ready.wait(20)
    assert seen == [10, "dq-client"]


def test_a_callback_that_raises_anything_harms_nobody(
    line: Connection, supervisor: Standin, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor.works = False

    def leave(_: Any) -> None:
        raise SystemExit(3)

    futures = [submit(line, double, number) for number in range(3)]
    futures[1].add_done_callback(leave)
    line.flush()
    supervisor.work()
    assert [future.result(20) for future in futures] == [0, 2, 4]
    assert submit(line, double, 8).done() is False
    assert "callback" in caplog.text


def test_a_pending_step_can_be_cancelled(line: Connection, supervisor: Standin) -> None:
    supervisor.works = False
    future = submit(line, double, 1)
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result(0)
    assert future.cancel()


def test_a_step_that_is_done_or_runs_can_not_be_cancelled(line: Connection, supervisor: Standin) -> None:
    future = submit(line, double, 1)
    assert future.result(20) == 2
    assert not future.cancel()
    supervisor.works = False
    supervisor.replies[frames.Cancel] = lambda message: supervisor.send(frames.CancelDone(message.ticket, []))
    future = submit(line, double, 1)
    assert not future.cancel()
    supervisor.work()
    assert future.result(20) == 2


def test_a_callback_may_cancel_other_steps(line: Connection, supervisor: Standin) -> None:
    supervisor.works = False
    futures = [submit(line, double, number) for number in range(3)]
    told: list[bool] = []
    ready = threading.Event()

    def cancel_others(_: Any) -> None:
        told.extend([futures[1].cancel(), futures[2].cancel()])
        ready.set()

    futures[0].add_done_callback(cancel_others)
    line.flush()
    supervisor._run(futures[0]._id)
    supervisor.send_results([futures[0]._id])
    assert ready.wait(20)
    assert told == [True, True]
