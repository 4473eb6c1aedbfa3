"""The connection of a client: steps go out once and come back, whatever happens to the supervisor."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from dq import errors
from dq.client import pump
from dq.client.connection import Connection
from dq.client.steps import StepFuture
from dq.executor import frames
from dq.executor.codec import Codec
from dq.model.states import COMPLETED, DEAD
from tests.unit.standin import STEPS, Standin, connected, submit
from tests.waiting import wait_until


def double(number: int) -> int:
    return number * 2


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests here are about single frames: no row waits for company."""
    monkeypatch.setattr(pump, "MANY_FRAMES", 1 << 30)


def test_a_result_comes_back(line: Connection, supervisor: Standin) -> None:
    assert submit(line, double, 21).result(20) == 42
    [define] = supervisor.of(frames.Define)
    assert define.name == f"{__name__}:double"
    assert define.kind == "step"


def test_a_failure_comes_back_with_its_type(line: Connection) -> None:
    future = submit(line, fail, "no")
    with pytest.raises(ValueError, match="no"):
        future.result(20)
    assert type(future.exception()) is ValueError


def test_a_crashed_step_says_so(line: Connection, supervisor: Standin) -> None:
    supervisor.works = False
    future = submit(line, double, 1)
    line.flush()
    supervisor.send(frames.Results(1, [(future._id, DEAD, Codec().failure(errors.StepCrashed("SIGSEGV")), 0, 0)]))
    with pytest.raises(errors.StepCrashed, match="SIGSEGV"):
        future.result(20)


def test_many_steps_travel_in_few_frames_with_consecutive_ids(line: Connection, supervisor: Standin) -> None:
    futures = [submit(line, double, number) for number in range(5000)]
    assert [future.result(20) for future in futures] == [2 * number for number in range(5000)]
    sent = supervisor.of(frames.Submit)
    assert len(sent) < 1000
    for frame in sent:
        assert [row[0] for row in frame.rows] == list(range(frame.rows[0][0], frame.rows[-1][0] + 1))
    assert len(supervisor.of(frames.Define)) == 1


def test_several_threads_submit_at_once(line: Connection, supervisor: Standin) -> None:
    futures: list[StepFuture[Any]] = []

    def flood(start: int) -> None:
        futures.extend([submit(line, double, number) for number in range(start, start + 2000)])

    threads = [threading.Thread(target=flood, args=(start * 2000,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(future.result(20) for future in futures) == [2 * number for number in range(8000)]
    assert sorted(supervisor.ids()) == sorted({future._id for future in futures})
    for frame in supervisor.of(frames.Submit):
        assert [row[0] for row in frame.rows] == list(range(frame.rows[0][0], frame.rows[-1][0] + 1))


def test_ids_are_leased_again_when_they_run_out(db: Path, supervisor: Standin) -> None:
    supervisor.block = 10
    with connected(db) as line:
        futures = [submit(line, double, number) for number in range(100)]
        assert [future.result(20) for future in futures] == [2 * number for number in range(100)]
    assert len({future._id for future in futures}) == 100


def test_what_is_not_on_disk_is_sent_again_to_the_successor(db: Path) -> None:
    first = Standin(db, acks=False, works=False)
    with connected(db) as line:
        futures = [submit(line, double, number) for number in range(700)]
        wait_until(lambda: len(first.record.steps) == 700)
        first.record.steps.clear()  # it had not committed
        first.die()
        second = Standin(db, first.record)
        assert [future.result(20) for future in futures] == [2 * number for number in range(700)]
        assert sorted(second.ids()) == first.ids()
        assert not second.of(frames.Submit)
        assert sorted(second.record.bodies) == first.ids()
    second.die()


def test_what_is_on_disk_is_adopted_and_not_sent_again(db: Path) -> None:
    first = Standin(db, works=False)
    with connected(db) as line:
        futures = [submit(line, double, number) for number in range(700)]
        line.flush()
        first.die()
        second = Standin(db, first.record, works=False)
        adopted = second.wait_for(frames.Adopt)
        assert [id for message in adopted for id in message.steps] == first.ids()
        assert not second.of(*STEPS)
        second.work()
        assert [future.result(20) for future in futures] == [2 * number for number in range(700)]
    second.die()


def test_acknowledgements_count_anew_with_each_supervisor(db: Path) -> None:
    first = Standin(db, acks=False, works=False)
    with connected(db) as line:
        futures = []
        for count in range(1, 5):
            futures.append(submit(line, double, count))
            first.wait_for(frames.Submit, count=count)
        first.send(frames.Acked(1))
        wait_until(lambda: len(line._pump.accounts.outbox) == 3)
        first.die()
        second = Standin(db, first.record, acks=False, works=False)
        second.wait_for(frames.Resubmit, count=3)
        assert [message.steps for message in second.wait_for(frames.Adopt)] == [[futures[0]._id]]
        second.send(frames.Acked(2))
        wait_until(lambda: len(line._pump.accounts.outbox) == 1)
        second.die()
        third = Standin(db, first.record, works=False)
        assert [row[0] for message in third.wait_for(frames.Resubmit) for row in message.rows] == [futures[3]._id]
        third.work()
        assert [future.result(20) for future in futures] == [2, 4, 6, 8]
    third.die()


def test_a_result_that_was_told_before_is_ignored(line: Connection, supervisor: Standin) -> None:
    future = submit(line, double, 2)
    assert future.result(20) == 4
    supervisor.send(frames.Results(1, [(future._id, COMPLETED, Codec().dumps(99, ""), 0, 0), (12345, 0, b"", 0, 0)]))
    assert submit(line, double, 3).result(20) == 6
    assert future.result() == 4


def test_rows_gather_while_frames_are_on_their_way(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "MANY_FRAMES", 1)
    supervisor = Standin(db, acks=False)
    with connected(db) as line:
        futures = [submit(line, double, 0)]
        supervisor.wait_for(frames.Submit)
        futures += [submit(line, double, number) for number in range(1, 100)]
        supervisor.acks = True
        supervisor.send(frames.Acked(1))
        assert [future.result(20) for future in futures] == [2 * number for number in range(100)]
        assert len(supervisor.of(frames.Submit)) == 2
    supervisor.die()


def test_garbage_from_the_supervisor_costs_the_connection_and_no_step(db: Path, supervisor: Standin) -> None:
    supervisor.works = False
    with connected(db) as line:
        future = submit(line, double, 4)
        line.flush()
        supervisor.garble()
        supervisor.wait_for(frames.Hello, count=2)
        supervisor.wait_for(frames.Adopt)
        supervisor.work()
        assert future.result(20) == 8


def test_questions_are_asked_again(db: Path) -> None:
    first = Standin(db)
    first.replies = dict.fromkeys((frames.Flush, frames.Census), lambda message: None)
    with connected(db) as line:
        answers: list[Any] = []

        def flushed() -> None:
            line.flush()
            answers.append(None)

        threads = [
            threading.Thread(target=lambda: answers.append(line.census())),
            threading.Thread(target=flushed),
        ]
        for thread in threads:
            thread.start()
        first.wait_for(frames.Flush)
        first.wait_for(frames.Census)
        first.die()
        second = Standin(db, first.record)
        for thread in threads:
            thread.join(20)
        assert len(answers) == 2
    second.die()


def test_a_supervisor_that_never_comes_back_fails_all_that_waits(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "TRIES", 2)
    monkeypatch.setattr(pump, "HOLD_OFF", 0.0)
    supervisor = Standin(db, works=False)
    with connected(db) as line:
        future = submit(line, double, 1)
        line.flush()
        supervisor.die()
        with pytest.raises(errors.SupervisorLost, match="dq up"):
            future.result(30)
        with pytest.raises(errors.SupervisorLost):
            submit(line, double, 2)
        with pytest.raises(errors.SupervisorLost):
            line.census()


def test_close_flushes_first_and_says_goodbye(db: Path, supervisor: Standin) -> None:
    supervisor.works = False
    with connected(db) as line:
        futures = [submit(line, double, number) for number in range(10)]
    kinds = [type(message) for message in supervisor.heard if not isinstance(message, frames.Lease)]
    assert kinds[-2:] == [frames.Flush, frames.Bye]
    assert supervisor.ids() == [future._id for future in futures]
    with pytest.raises(errors.SupervisorLost, match="on record"):
        futures[0].result(0)
    with pytest.raises(RuntimeError, match="closed"):
        submit(line, double, 1)
    with pytest.raises(RuntimeError, match="closed"):
        line.flush()
    line.close()


def test_close_sees_to_it_that_a_successor_has_everything(db: Path) -> None:
    first = Standin(db, acks=False, works=False)
    first.replies[frames.Flush] = lambda message: None
    with connected(db) as line:
        future = submit(line, double, 1)
        closing = threading.Thread(target=line.close)
        closing.start()
        first.wait_for(frames.Flush)
        first.record.steps.clear()
        first.die()
        second = Standin(db, first.record, works=False)
        closing.join(20)
    assert list(second.record.steps) == [future._id]
    second.die()


def test_a_forked_process_is_told_that_the_connection_is_not_its_own(line: Connection, supervisor: Standin) -> None:
    supervisor.works = False
    future = submit(line, double, 1)
    line.flush()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = []
        for use in (lambda: submit(line, double, 2), line.flush, future.result, future.cancel, line.wait_idle):
            try:
                use()
            except RuntimeError as error:
                told.append(str(os.getppid()) in str(error))
        line.close()
        os.write(writer, repr(told).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        assert pipe.read() == repr([True] * 5)
    os.waitpid(pid, 0)
    supervisor.work()
    assert future.result(20) == 2


def test_an_idle_connection_sleeps(line: Connection) -> None:
    wait_until(lambda: line.asleep)
    before = line._pump.turn
    line.census()
    line.census()
    wait_until(lambda: line.asleep)
    assert line._pump.turn - before <= 8


def test_large_arguments_travel_as_side_files(line: Connection, supervisor: Standin, db: Path) -> None:
    futures = [submit(line, len, bytes(1 << 20)) for _ in range(3)]
    assert [future.result(20) for future in futures] == [1 << 20] * 3
    names = sorted(path.name for path in Path(f"{db}.blobs").rglob("a*") if path.is_file())
    assert [name.split("-")[0] for name in names] == sorted(f"a{future._id}" for future in futures)
    assert all(len(args) < 1000 for _, args in supervisor.record.steps.values())


def test_frames_stay_small_where_arguments_are_not(line: Connection, supervisor: Standin) -> None:
    futures = [submit(line, len, bytes(200_000)) for _ in range(60)]
    assert [future.result(20) for future in futures] == [200_000] * 60
    assert max(sum(len(row[2]) for row in frame.rows) for frame in supervisor.of(frames.Submit)) < 2 << 20


def test_arguments_that_can_not_travel_are_refused_at_once(line: Connection, supervisor: Standin) -> None:
    with pytest.raises(errors.NotPicklable, match="lock"):
        submit(line, double, threading.Lock())
    assert submit(line, double, 1).result(20) == 2


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    supervisor = Standin(folder / "f.db")
    with connected(folder / "f.db") as line:
        assert submit(line, double, 3).result(20) == 6
    supervisor.die()


def test_no_supervisor_and_none_to_be_started(db: Path) -> None:
    with pytest.raises(errors.SupervisorLost, match="dq up"), connected(db):
        pass


def test_a_supervisor_that_refuses_the_client_says_why(db: Path, supervisor: Standin) -> None:
    supervisor.replies[frames.Hello] = lambda message: supervisor.send(frames.Refused(0, "DqError", "another version"))
    with pytest.raises(errors.DqError, match="another version"), connected(db):
        pass


def test_steps_come_to_their_end_when_the_user_has_left(db: Path, supervisor: Standin) -> None:
    supervisor.works = False
    with connected(db) as line:
        future = submit(line, double, 6)
        line.flush()
        line.leave()
        with pytest.raises(RuntimeError, match="closed"):
            submit(line, double, 7)
        supervisor.work()
        assert future.result(20) == 12
        supervisor.wait_for(frames.Bye)
        wait_until(lambda: line.is_ended)
