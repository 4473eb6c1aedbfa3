"""Desks: results leave in good time and in whole frames, and the slot says what has not left."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.executor.contract import About, Executor, Job, Outcome
from dq.executor.desk import MemberDesk, SerialDesk, SharedDesk
from dq.executor.frames import Progress, Results
from dq.executor.link import Closed, Link
from dq.executor.slots import BEGUN, ENTRIES, UNSENT, SlotReader, SlotWriter, open_slots
from dq.model.states import COMPLETED, FAILED

NS = 1_000_000  # in a millisecond


class Inline(Executor):
    """Runs jobs where they are submitted, each as long as its function number says, in milliseconds."""

    serial = True

    def start(self, desk: MemberDesk) -> None:  # type: ignore[override]
        self.desk = desk
        self.seen: list[int] = []

    def submit(self, job: Job) -> None:
        if self.desk.begin(job):
            self.seen.append(job.step)
            self.desk.report(job, job.run())

    def shutdown(self, drain: float | None) -> None:
        pass


class Refusing(Inline):
    """Takes no job."""

    def submit(self, job: Job) -> None:
        raise OSError("the cluster is gone")


class Set:
    """A desk, the other end of its link, and its slot."""

    def __init__(self, desk: MemberDesk, far: Link, slots: str) -> None:
        self.desk = desk
        self.far = far
        self.reader = SlotReader(open_slots(slots))
        self.executor = Inline(1)
        self.executor.start(desk)

    def accept(self, epoch: int, *steps: int, ms: float = 0) -> None:
        rows = [(step, 1, int(ms * 1000), b"") for step in steps]
        self.desk.accept(epoch, rows, lambda job: Outcome(job.step, COMPLETED, b"", 0, job.function * 1000))

    def frames(self) -> list[tuple[int, list[int]]]:
        """What has been sent by now: (epoch, steps) of each frame."""
        found = self.far.poll()
        assert all(isinstance(message, Results) for message in found)
        return [(message.epoch, [row[0] for row in message.rows]) for message in found]

    def await_rows(self, count: int) -> list[tuple[int, int]]:
        rows: list[tuple[int, int]] = []
        while len(rows) < count:
            rows += [(message.epoch, row[0]) for message in self.far.receive() for row in message.rows]
        return rows


@pytest.fixture(params=[SerialDesk, SharedDesk])
def kind(request: pytest.FixtureRequest) -> type[SerialDesk | SharedDesk]:
    found: type[SerialDesk | SharedDesk] = request.param
    return found


@pytest.fixture
def either(kind: type[SerialDesk | SharedDesk], tmp_path: Path) -> Iterator[Set]:
    yield from _set(kind, tmp_path)


@pytest.fixture
def serial(tmp_path: Path) -> Iterator[Set]:
    yield from _set(SerialDesk, tmp_path)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Set]:
    yield from _set(SharedDesk, tmp_path)


def _set(kind: type[SerialDesk | SharedDesk], folder: Path) -> Iterator[Set]:
    near, far = socket.socketpair()
    far.settimeout(30)
    path = str(folder / "F.db.slots")
    with near, far:
        desk = kind(Link(near))
        desk.slot = SlotWriter(open_slots(path, create=True), 0)
        yield Set(desk, Link(far), path)
        desk.close()


def test_all_results_of_a_claim_are_sent_and_the_slot_is_free(either: Set) -> None:
    either.accept(7, 1, 2, 3)
    either.desk.hand_out(either.executor)
    assert sorted(either.await_rows(3)) == [(7, 1), (7, 2), (7, 3)]
    either.desk.close()
    assert either.reader.entries(0) == []
    assert either.reader.identity(0).finished == 3


def test_more_than_fits_into_the_slot(either: Set) -> None:
    steps = range(1, 4 * ENTRIES)
    found: list[tuple[int, int]] = []
    reader = threading.Thread(target=lambda: found.extend(either.await_rows(len(steps))))
    reader.start()
    either.accept(7, *steps)
    either.desk.hand_out(either.executor)
    reader.join(30)
    assert sorted(found) == [(7, step) for step in steps]


def test_revoked_jobs_do_not_begin(either: Set) -> None:
    either.accept(7, 1, 2)
    either.accept(8, 3)
    assert either.desk.revoke() == [(7, 1), (7, 2), (8, 3)]
    either.accept(9, 2)
    either.desk.hand_out(either.executor)
    assert either.await_rows(1) == [(9, 2)]
    assert either.executor.seen == [2]


def test_progress_leaves_at_once_and_behind_earlier_results(serial: Set) -> None:
    seen: list[object] = []

    def body(job: Job) -> Outcome:
        if job.step == 2:
            told = threading.Thread(target=serial.desk.progress, args=(job, b"cursor"))
            told.start()
            told.join(30)
            seen.extend(serial.far.poll())
        return Outcome(job.step, COMPLETED, b"", 0, 0)

    serial.desk.accept(7, [(1, 1, 0, b""), (2, 1, 0, b"")], body)
    serial.desk.hand_out(serial.executor)
    assert seen == [Results(7, [(1, COMPLETED, b"", 0, 0)]), Progress(7, 2, b"cursor")]
    assert serial.frames() == [(7, [2])]


def test_jobs_know_what_is_known_of_their_steps(either: Set) -> None:
    seen: list[tuple[int, About | None]] = []

    def body(job: Job) -> Outcome:
        seen.append((job.step, job.about))
        return Outcome(job.step, COMPLETED, b"", 0, 0)

    about = About("run")
    either.desk.accept(7, [(1, 1, 0, b""), (2, 1, 0, b"")], body, [about, None])
    either.desk.hand_out(either.executor)
    assert seen == [(1, about), (2, None)]


def test_a_frame_never_mixes_claims(serial: Set) -> None:
    serial.accept(7, 1, 2)
    serial.accept(8, 3, 4)
    serial.desk.hand_out(serial.executor)
    assert serial.frames() == [(7, [1, 2]), (8, [3, 4])]


def test_short_bodies_share_a_frame_and_long_ones_do_not(serial: Set) -> None:
    serial.accept(7, *range(1, 101), ms=0.001)
    serial.desk.hand_out(serial.executor)
    assert serial.frames() == [(7, [*range(1, 101)])]
    serial.accept(8, 1, 2, ms=0.3)
    serial.desk.hand_out(serial.executor)
    assert serial.frames() == [(8, [1]), (8, [2])]


def test_no_result_waits_for_more_than_a_millisecond_of_bodies(serial: Set) -> None:
    serial.accept(7, *range(1, 31), ms=0.1)
    serial.desk.hand_out(serial.executor)
    assert all(len(steps) <= 11 for _, steps in serial.frames())


def test_the_slot_tells_begun_from_unsent(either: Set) -> None:
    either.accept(7, 1)
    seen: list[tuple[int, int, int]] = []

    def look(job: Job) -> Outcome:
        seen.extend(either.reader.entries(0))
        return Outcome(job.step, COMPLETED, b"", 0, 1)

    either.desk.accept(7, [(2, 1, 0, b"")], look)
    either.desk.hand_out(either.executor)
    assert (2, 7, BEGUN) in seen
    if isinstance(either.desk, SerialDesk):
        assert seen == [(1, 7, UNSENT), (2, 7, BEGUN)]
    either.await_rows(2)


def test_rescue_sends_what_a_long_body_holds_up(serial: Set) -> None:
    serial.accept(7, 1, 2)
    seen: list[object] = []

    def long(job: Job) -> Outcome:
        serial.desk.rescue()
        seen.extend(serial.frames())
        seen.extend(serial.reader.entries(0))
        return Outcome(job.step, COMPLETED, b"", 0, 1)

    serial.desk.accept(7, [(3, 1, 0, b"")], long)
    serial.accept(7, 4)
    serial.desk.hand_out(serial.executor)
    assert seen == [(7, [1, 2]), (3, 7, BEGUN)]
    assert serial.frames() == [(7, [3, 4])]
    assert serial.reader.entries(0) == []


def test_rescue_and_reports_at_once_lose_nothing(serial: Set) -> None:
    found: list[tuple[int, int]] = []
    steps = range(1, 20_001)
    reader = threading.Thread(target=lambda: found.extend(serial.await_rows(len(steps))))
    done = threading.Event()

    def rescue() -> None:
        while not done.is_set():
            serial.desk.rescue()

    rescuer = threading.Thread(target=rescue)
    reader.start()
    rescuer.start()
    for first in range(1, 20_001, 100):
        serial.accept(first, *range(first, first + 100))
        serial.desk.hand_out(serial.executor)
    done.set()
    rescuer.join(30)
    reader.join(30)
    assert found == [(step - (step - 1) % 100, step) for step in steps]
    assert serial.reader.entries(0) == []


def test_a_backend_that_refuses_a_job_fails_the_step(shared: Set) -> None:
    shared.accept(7, 1)
    refusing = Refusing(1)
    refusing.start(shared.desk)
    shared.desk.hand_out(refusing)
    (message,) = shared.far.receive()
    assert message.rows[0][:2] == (1, FAILED)


def test_without_a_reader_a_report_raises_closed(serial: Set) -> None:
    serial.far.close()
    serial.accept(7, 1)
    with pytest.raises(Closed):
        serial.desk.hand_out(serial.executor)
    serial.desk._next = 0  # type: ignore[attr-defined]
