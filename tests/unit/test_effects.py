"""What a body wants done with its completion: checked at the door, sent when it has returned, dropped if it fails."""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

import dq
from dq.executor import effects
from dq.executor.codec import Codec
from dq.executor.contract import Executor, Job, Laden, Outcome
from dq.executor.desk import MemberDesk, SerialDesk, SharedDesk
from dq.executor.envelope import Runner
from dq.executor.frames import Effects, Results
from dq.executor.functions import define
from dq.executor.link import Link
from dq.executor.slots import SlotReader, SlotWriter, open_slots
from dq.model.states import COMPLETED, FAILED
from tests.unit import replaying, scripted


class Colour(IntEnum):
    RED = 3


@dq.step(priority=2)
def later(value: int) -> int:
    return value


def writes(value: Any) -> str:
    dq.write("INSERT INTO t VALUES (?)", (value,))
    dq.write("DELETE FROM t WHERE a = :a", {"a": 1}, expect=1)
    return "done"


def asks() -> None:
    dq.enqueue(later, 1)
    dq.enqueue(len, [1])
    dq.enqueue(later, 2)
    dq.signal("run-1", "go", {"a": 1})


def fails() -> None:
    dq.write("DELETE FROM t")
    raise ValueError("no")


async def writes_later() -> None:
    await asyncio.to_thread(dq.write, "DELETE FROM t")
    dq.write("DELETE FROM u")


def plain() -> int:
    return 1


class Inline(Executor):
    """Runs jobs where they are submitted."""

    def __init__(self, desk: MemberDesk) -> None:
        super().__init__(1)
        self.start(desk)

    def start(self, desk: Any) -> None:
        self.desk = desk

    def submit(self, job: Job) -> None:
        if self.desk.begin(job):
            self.desk.report(job, job.run())

    def shutdown(self, drain: float | None) -> None:
        pass


class Bench:
    """A runner and its codec."""

    def __init__(self, folder: Path) -> None:
        self.codec = Codec(str(folder / "F.db.blobs"))
        self.runner = Runner(self.codec)

    def job(self, function: Any, *args: Any) -> Job:
        self.runner.define(define(1, function, kind="step"))
        return Job(9, 5, 1, 1, self.codec.dumps((args, {}), "a5"), self.runner.entry)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield Bench(tmp_path)
    assert not effects.pending


def _frame(outcome: Outcome) -> Effects:
    assert isinstance(outcome, Laden)
    return outcome.frame


def test_statements_travel_with_what_the_body_returned(bench: Bench) -> None:
    frame = _frame(bench.job(writes, b"x").run())
    assert (frame.epoch, frame.step, bench.codec.loads(frame.payload)) == (9, 5, "done")
    assert frame.statements == [
        ("INSERT INTO t VALUES (?)", [b"x"], None),
        ("DELETE FROM t WHERE a = :a", {"a": 1}, 1),
    ]


def test_steps_and_signals_travel_too_and_each_function_once(bench: Bench) -> None:
    frame = _frame(bench.job(asks).run())
    assert [told.name for told in frame.defines] == ["tests.unit.test_effects:later", "builtins:len"]
    assert [(number, bench.codec.loads(args)) for number, args in frame.submits] == [
        (0, ((1,), {})),
        (1, (([1],), {})),
        (0, ((2,), {})),
    ]
    assert [(term.step, term.priority) for term in frame.terms] == [(0, 2), (2, 2)]
    [(run, name, payload)] = frame.signals
    assert (run, name, bench.codec.loads(payload)) == ("run-1", "go", {"a": 1})


def test_a_body_that_fails_leaves_nothing_behind(bench: Bench) -> None:
    outcome = bench.job(fails).run()
    assert type(outcome) is Outcome
    assert outcome.status == FAILED


def test_a_body_that_asks_for_nothing_has_a_plain_outcome(bench: Bench) -> None:
    assert type(bench.job(plain).run()) is Outcome


def test_an_async_body_and_its_threads_may_write(bench: Bench) -> None:
    frame = _frame(bench.job(writes_later).run())
    assert [sql for sql, _, _ in frame.statements] == ["DELETE FROM t", "DELETE FROM u"]


def test_an_outcome_with_effects_survives_the_way_from_another_machine(bench: Bench) -> None:
    outcome = bench.job(writes, 1).run()
    assert pickle.loads(pickle.dumps(outcome)) == outcome


@pytest.mark.parametrize("kind", [SerialDesk, SharedDesk])
def test_effects_leave_in_frames_of_their_own_after_what_was_finished_before(
    bench: Bench, tmp_path: Path, kind: type[SerialDesk | SharedDesk]
) -> None:
    near, far = socket.socketpair()
    far.settimeout(30)
    path = str(tmp_path / "F.db.slots")
    with near, far:
        desk: MemberDesk = kind(Link(near))
        desk.slot = SlotWriter(open_slots(path, create=True), 0)
        rows = [(1, 1, 2, b""), *[(step, 1, 1, bench.job(writes, step).args) for step in (2, 3)]]
        desk.accept(9, rows, lambda job: bench.runner.entry(job) if job.step > 1 else Outcome(1, COMPLETED, b"", 0, 1))
        desk.hand_out(Inline(desk))
        desk.close()
        link = Link(far)
        found: list[Any] = []
        while len(found) < 3:
            found += link.receive()
    assert [type(message) for message in found] == [Results, Effects, Effects]
    assert [found[0].rows[0][0], found[1].step, found[2].step] == [1, 2, 3]
    assert SlotReader(open_slots(path)).entries(0) == []


@pytest.mark.parametrize(
    ("params", "error", "culprit"),
    [
        ((1, object()), TypeError, r"params\[1\] is of type object"),
        ({"a": [1]}, TypeError, r"params\['a'\] is of type list"),
        ({1: 2}, TypeError, "has the key 1"),
        ("abc", TypeError, "params is a str"),
        ((1 << 63,), ValueError, r"params\[0\] is 9223372036854775808; SQLite's integers have 64 bits"),
        (("\ud800",), ValueError, r"params\[0\] holds a lone surrogate"),
    ],
)
def test_what_sqlite_does_not_know_is_refused_at_the_door(params: Any, error: type[Exception], culprit: str) -> None:
    with pytest.raises(error, match=culprit):
        effects.check("dq.write", "DELETE FROM t", params)


@pytest.mark.parametrize("sql", [b"DELETE FROM t", "  ", "\udc00"])
def test_a_statement_is_text(sql: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"dq\.write: the statement"):
        dq.write(sql)


def test_subclasses_travel_as_what_they_derive_from() -> None:
    given = effects.check("dq.write", "DELETE FROM t", [True, Colour.RED, None, 1.5, -(1 << 63)])
    assert given == [1, 3, None, 1.5, -(1 << 63)]
    assert {type(value) for value in given if value is not None} == {int, float}


@pytest.mark.parametrize("expect", [-1, True, "1", 1.0])
def test_expect_is_a_number_of_rows(expect: Any) -> None:
    with pytest.raises(TypeError, match="expect is"):
        dq.write("DELETE FROM t", expect=expect)


def test_too_much_for_one_attempt_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "SIZE_MAX", 1000)
    outcome = bench.job(writes, b"x" * 1000).run()
    assert outcome.status == FAILED
    assert "hold more than" in str(bench.codec.restore(outcome.payload))


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        (lambda: dq.write("DELETE FROM t"), r"engine\.execute"),
        (lambda: dq.enqueue(later, 1), r"engine\.submit\(later"),
        (lambda: dq.signal("run-1", "go"), r"engine\.signal"),
        (lambda: dq.read("SELECT 1"), r"engine\.read"),
    ],
)
def test_outside_of_a_step_they_say_what_to_use(call: Any, instead: str) -> None:
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            call()
        except dq.DqError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)  # no job was ever begun in it
    thread.start()
    thread.join()
    with pytest.raises(dq.DqError, match=instead):
        raise caught[0]


@dq.workflow
def wrong(what: str) -> None:
    if what == "write":
        dq.write("DELETE FROM t")
    else:
        dq.enqueue(later, 1)


@pytest.mark.parametrize(("what", "instead"), [("write", "into a step"), ("enqueue", "later.submit")])
def test_in_a_workflow_they_say_what_to_use(crew: scripted.Crew, what: str, instead: str) -> None:
    crew.start(wrong, what)
    with pytest.raises(dq.DqError, match=instead):
        crew.finish()


def test_a_workflow_is_not_submitted_like_a_step() -> None:
    with pytest.raises(TypeError, match="is a workflow"):
        dq.enqueue(wrong, "write")


@dq.workflow
def tells() -> str:
    dq.signal("other", "go", {"n": 1})
    later(1)
    try:
        dq.signal("nobody", "go")
    except dq.NoSuchRun as error:
        return str(error)
    return "sent"


@dq.workflow
async def tells_later() -> str:
    await dq.signal("other", "go", {"n": 1})
    return "sent"


def test_a_workflow_s_signal_is_on_record_once(crew: scripted.Crew) -> None:
    crew.start(tells)
    [step] = crew.until_asked(1)
    assert (step.name, step.topic, crew.codec.loads(step.args)) == ("dq:signal", "go", (("other", "go"), {}))
    crew.complete(step)
    crew.complete(crew.until_asked(2)[1])
    last = crew.until_asked(3)[2]
    crew.commit([(last, FAILED, scripted.failure(dq.NoSuchRun("there is no run 'nobody'")))])
    live = crew.finish()
    assert "nobody" in live
    replaying.from_every_beginning(crew, live)


def test_an_async_workflow_awaits_its_signal(crew: scripted.Crew) -> None:
    crew.start(tells_later)
    crew.complete(*crew.until_asked(1))
    live = crew.finish()
    assert live == "sent"
    replaying.again(crew, live)
