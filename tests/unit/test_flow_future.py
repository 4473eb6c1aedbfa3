"""The public future keeps to concurrent.futures, whoever waits and however late it makes its parts."""

from __future__ import annotations

import concurrent.futures
import pickle
import threading
from typing import Any

import pytest

from dq.flow.future import Future

_LIMIT = 20.0  # seconds


def _raises(payload: bytes) -> Any:
    raise OSError("the file is gone")


def test_a_value_is_decoded_once_and_by_whoever_asks() -> None:
    calls: list[bytes] = []

    def decode(payload: bytes) -> Any:
        calls.append(payload)
        return pickle.loads(payload)

    future: Future[list[int]] = Future()
    assert not future.done()
    future.resolve(pickle.dumps([1]), decode)
    assert future.done()
    assert not calls
    assert future.result() is future.result()
    assert future.exception() is None
    assert len(calls) == 1


def test_a_failure_is_raised_as_the_same_exception_each_time() -> None:
    future: Future[int] = Future()
    future.resolve(b"x", ValueError, failed=True)
    with pytest.raises(ValueError, match="x") as first:
        future.result()
    assert future.exception() is first.value


def test_what_decoding_raises_is_raised() -> None:
    future: Future[int] = Future()
    future.resolve(b"x", _raises)
    with pytest.raises(OSError, match="gone"):
        future.result()


def test_waiting_in_another_thread() -> None:
    future: Future[int] = Future()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(future.result, _LIMIT)
        future.resolve(pickle.dumps(7), pickle.loads)
        assert waiting.result(_LIMIT) == 7


def test_a_timeout() -> None:
    future: Future[int] = Future()
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0)


def test_callbacks_before_and_after_the_end() -> None:
    future: Future[int] = Future()
    heard: list[tuple[str, int]] = []
    future.add_done_callback(lambda done: heard.append(("before", done.result())))
    future.resolve(pickle.dumps(7), pickle.loads)
    future.add_done_callback(lambda done: heard.append(("after", done.result())))
    assert heard == [("before", 7), ("after", 7)]


def test_wait_and_as_completed() -> None:
    futures: list[Future[int]] = [Future() for _ in range(4)]
    futures[0].resolve(pickle.dumps(0), pickle.loads)

    def end_the_others() -> None:
        futures[1].resolve(b"", lambda _: ValueError("one"), failed=True)
        futures[2].drop()
        futures[3].set_result(3)

    done, _ = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)
    assert done == {futures[0]}
    completed = concurrent.futures.as_completed(futures, _LIMIT)
    assert next(completed) is futures[0]
    thread = threading.Thread(target=end_the_others)
    thread.start()
    assert set(completed) == set(futures[1:])
    thread.join(_LIMIT)
    assert futures[2].cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        futures[2].result()


def test_wait_for_the_first_exception() -> None:
    futures: list[Future[int]] = [Future(), Future()]
    futures[1].set_exception(ValueError("one"))
    done, waiting = concurrent.futures.wait(futures, _LIMIT, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert (done, waiting) == ({futures[1]}, {futures[0]})


def test_a_future_ends_once() -> None:
    future: Future[int] = Future()
    future.set_result(1)
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_result(2)
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_exception(ValueError())
    assert future.result() == 1


def test_no_wake_up_is_lost_between_a_waiter_and_the_resolver() -> None:
    """Each round lets both race to the moment at which the condition comes into being."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for round_ in range(2000):
            future: Future[int] = Future()
            waiting = pool.submit(future.result, _LIMIT)
            future.resolve(pickle.dumps(round_), pickle.loads)
            assert waiting.result(_LIMIT) == round_


def test_no_callback_is_lost_or_called_twice() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for _ in range(2000):
            future: Future[int] = Future()
            heard: list[Any] = []
            adding = pool.submit(future.add_done_callback, heard.append)
            future.resolve(b"", pickle.loads)
            adding.result(_LIMIT)
            assert heard == [future]
