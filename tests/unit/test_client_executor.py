"""dq.Executor, against a supervisor that is played by hand: what a ProcessPoolExecutor does."""

from __future__ import annotations

import concurrent.futures
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import dq
from dq.client import engine as engine_module
from dq.client.launcher import Launcher
from dq.executor import frames
from tests.unit.standin import Standin
from tests.waiting import wait_until


def double(number: int) -> int:
    return number * 2


def fail_at(number: int, bad: int) -> int:
    if number == bad:
        raise KeyError(number)
    return number


async def later(number: int) -> int:
    return number + 1


@pytest.fixture(autouse=True)
def no_supervisor_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines find the stand-in, or nobody."""
    monkeypatch.setattr(engine_module, "Launcher", lambda path, options: Launcher(path, None))


@pytest.fixture
def pool(db: Path, supervisor: Standin) -> Iterator[dq.Executor]:
    with dq.Executor(db, max_workers=2) as executor:
        yield executor


def test_it_is_an_executor_and_its_futures_are_futures(pool: dq.Executor) -> None:
    assert isinstance(pool, concurrent.futures.Executor)
    future = pool.submit(double, 2)
    assert isinstance(future, concurrent.futures.Future)
    assert isinstance(future, dq.Future)
    assert future.result(20) == 4
    assert future.exception() is None


def test_wait_and_as_completed(pool: dq.Executor, supervisor: Standin) -> None:
    supervisor.works = False
    futures = [pool.submit(fail_at, number, 3) for number in range(6)]
    pool._line.flush()
    done, not_done = concurrent.futures.wait(futures, timeout=0)
    assert (len(done), len(not_done)) == (0, 6)
    supervisor.work()
    done, _ = concurrent.futures.wait(futures, timeout=20, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert futures[3] in done
    assert set(concurrent.futures.as_completed(futures, timeout=20)) == set(futures)


def test_wait_sees_cancelled_futures(pool: dq.Executor, supervisor: Standin) -> None:
    supervisor.works = False
    futures = [pool.submit(double, number) for number in range(3)]
    assert futures[1].cancel()
    done, not_done = concurrent.futures.wait(futures, timeout=0)
    assert done == {futures[1]}
    supervisor.work()
    assert set(concurrent.futures.as_completed(futures, timeout=20)) == set(futures)
    assert len(not_done) == 2


def test_map(pool: dq.Executor) -> None:
    assert list(pool.map(double, range(2000))) == [2 * number for number in range(2000)]
    assert list(pool.map(pow, [2, 3, 4], [3, 2])) == [8, 9]
    assert list(pool.map(lambda number: -number, [1, 2])) == [-1, -2]


@pytest.mark.parametrize("chunksize", [1, 3, 10, 1000])
def test_map_in_chunks(pool: dq.Executor, supervisor: Standin, chunksize: int) -> None:
    assert list(pool.map(double, range(100), chunksize=chunksize)) == [2 * number for number in range(100)]
    assert len(supervisor.record.steps) == -(-100 // chunksize)
    assert list(pool.map(lambda number: -number, range(5), chunksize=2)) == [0, -1, -2, -3, -4]


def test_map_in_chunks_of_what_fails_or_is_async(pool: dq.Executor) -> None:
    results = pool.map(fail_at, range(10), [7] * 10, chunksize=5)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(results)
    assert pool.submit(double, 1).result(20) == 2


def test_map_submits_at_once_and_has_a_timeout(pool: dq.Executor, supervisor: Standin) -> None:
    supervisor.works = False
    results = pool.map(double, range(3000), timeout=0.05)
    pool._line.flush()
    assert len(supervisor.record.steps) == 3000
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    pool._line.flush()
    assert sum(len(message.steps) for message in supervisor.of(frames.Cancel)) == 3000


def test_map_refuses_a_chunksize_below_one(pool: dq.Executor) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(double, [1], chunksize=0)


@pytest.mark.parametrize("workers", [0, -1])
def test_it_needs_a_worker(db: Path, workers: int) -> None:
    with pytest.raises(ValueError, match="max_workers"):
        dq.Executor(db, max_workers=workers)


def test_a_call_that_can_not_be_pickled_fails_in_its_future(pool: dq.Executor) -> None:
    future = pool.submit(double, threading.Lock())  # type: ignore[arg-type]
    with pytest.raises(dq.NotPicklable, match="lock"):
        future.result(0)
    lock = threading.Lock()
    with pytest.raises(dq.NotPicklable, match="lock"):
        pool.submit(lambda: lock).result(0)


def test_shutdown_waits_for_all_results(db: Path, supervisor: Standin) -> None:
    supervisor.works = False
    pool = dq.Executor(db)
    futures = [pool.submit(double, number) for number in range(50)]
    shutting = threading.Thread(target=pool.shutdown)
    shutting.start()
    wait_until(lambda: len(supervisor.record.steps) == 50)
    assert shutting.is_alive()
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(double, 1)
    supervisor.work()
    shutting.join(20)
    assert [future.result(0) for future in futures] == [2 * number for number in range(50)]
    assert supervisor.of(frames.Bye)
    pool.shutdown()


def test_shutdown_without_waiting(db: Path, supervisor: Standin) -> None:
    supervisor.works = False
    pool = dq.Executor(db)
    future = pool.submit(double, 4)
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(double, 1)
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.map(double, [1])
    wait_until(lambda: len(supervisor.record.steps) == 1)
    supervisor.work()
    assert future.result(20) == 8
    supervisor.wait_for(frames.Bye)
    wait_until(lambda: pool._line.is_ended)


def test_shutdown_cancels_what_nobody_has_begun(db: Path, supervisor: Standin) -> None:
    supervisor.works = False
    pool = dq.Executor(db)
    futures = [pool.submit(double, number) for number in range(50)]
    pool._line.flush()
    supervisor._run(futures[0]._id)  # type: ignore[attr-defined]
    begun = threading.Thread(target=lambda: supervisor.send_results([futures[0]._id]))  # type: ignore[attr-defined]
    begun.start()
    pool.shutdown(cancel_futures=True)
    begun.join(20)
    assert futures[0].result(0) == 0
    assert all(future.cancelled() for future in futures[1:])


def test_a_pool_that_is_dropped_says_goodbye(db: Path, supervisor: Standin) -> None:
    pool = dq.Executor(db)
    line = pool._line
    future = pool.submit(double, 4)
    del pool
    gc.collect()
    assert future.result(20) == 8
    supervisor.wait_for(frames.Bye)
    wait_until(lambda: line.is_ended)


def test_shutdown_in_a_callback_is_refused(pool: dq.Executor, supervisor: Standin) -> None:
    supervisor.works = False
    told: list[str] = []
    ready = threading.Event()

    def stop(_: object) -> None:
        try:
            pool.shutdown()
        except RuntimeError as error:
            told.append(str(error))
        ready.set()

    pool.submit(double, 1).add_done_callback(stop)
    pool._line.flush()
    supervisor.work()
    assert ready.wait(20)
    assert "callback" in told[0]
