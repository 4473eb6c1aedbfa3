"""Engine and Run, against a supervisor that is played by hand."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dq
from dq.client import engine as engine_module
from dq.client import ids, stream
from dq.client.launcher import Launcher
from dq.executor import current, frames
from dq.executor.codec import Codec
from tests.unit.standin import Standin
from tests.waiting import wait_until


@dq.step(executor="io", max_crashes=5)
def double(number: int) -> int:
    return number * 2


@dq.step
def fail_at(number: int, bad: int) -> int:
    if number == bad:
        raise KeyError(number)
    return number


@dq.workflow
def movie(frames: int, *, title: str = "") -> str:
    return title * frames


@dq.workflow(name="film")
def renamed() -> None: ...


class Scale:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, number: int) -> int:
        return self.factor * number

    def __call__(self, number: int) -> int:
        return -self.factor * number


def add(left: int, right: int = 0) -> int:
    return left + right


@pytest.fixture(autouse=True)
def no_supervisor_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines find the stand-in, or nobody."""
    monkeypatch.setattr(engine_module, "Launcher", lambda path, options: Launcher(path, None))


@pytest.fixture
def engine(db: Path, supervisor: Standin) -> Iterator[dq.Engine]:
    with dq.Engine(db) as opened:
        yield opened


def end(supervisor: Standin, run: dq.Run[Any], state: str, payload: bytes) -> None:
    ended = frames.Ended(run._number, state, payload)
    supervisor.record.ended[run._number] = ended
    supervisor.send(ended)


def test_a_step_travels_with_its_options(engine: dq.Engine, supervisor: Standin) -> None:
    assert engine.submit(double, 4).result(20) == 8
    [define] = supervisor.of(frames.Define)
    assert (define.executor, define.max_crashes, define.kind) == ("io", 5, "step")


def test_the_same_id_is_the_same_run(engine: dq.Engine, supervisor: Standin) -> None:
    first = engine.start(movie, 3, title="x", id="movie-1")
    second = engine.start(movie, 3, title="x", id="movie-1")
    assert first._number == second._number
    assert first.id == second.id == "movie-1"
    assert first.workflow == f"{__name__}:movie"
    assert engine.start(renamed).workflow == "film"


def test_a_run_id_that_is_taken_shows_both(engine: dq.Engine) -> None:
    engine.start(movie, 3, title="x", id="movie-1")
    with pytest.raises(dq.RunConflict) as caught:
        engine.start(movie, 4, title="y" * 1000, id="movie-1")
    assert "movie(3, title='x')" in str(caught.value)
    assert "movie(4, title='yyy" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_conflict_with_arguments_that_can_not_be_read(engine: dq.Engine, supervisor: Standin) -> None:
    def clash(message: frames.Start) -> None:
        supervisor.send(frames.Acked(1))
        supervisor.send(frames.Clash(message.ticket, "m:old", b"broken"))

    supervisor.replies[frames.Start] = clash
    with pytest.raises(dq.RunConflict, match=r"m:old.*can't be read"):
        engine.start(movie, 4, id="movie-1")


def test_a_run_tells_its_result(engine: dq.Engine, supervisor: Standin) -> None:
    run = engine.start(movie, 3)
    assert run.status == "running"
    assert not run.done()
    assert run.progress() == (3, 7)
    with pytest.raises(TimeoutError, match="it goes on"):
        run.result(timeout=0.01)
    end(supervisor, run, "completed", Codec().dumps("done", ""))
    assert run.result(20) == "done"
    assert run.result() == "done"
    assert run.status == "completed"
    assert run.done()
    assert len(supervisor.of(frames.Watch)) == 1


def test_a_run_raises_what_its_workflow_raised(engine: dq.Engine, supervisor: Standin) -> None:
    run = engine.start(movie, 3)
    end(supervisor, run, "failed", Codec().failure(TimeoutError("the workflow's own")))
    for _ in range(2):
        with pytest.raises(TimeoutError, match="the workflow's own"):
            run.result(20)
    assert run.done()


def test_a_cancelled_run(engine: dq.Engine, supervisor: Standin) -> None:
    run = engine.start(movie, 3)
    end(supervisor, run, "cancelled", b"")
    with pytest.raises(dq.Cancelled, match=run.id):
        run.result(20)


def test_a_blocked_run_may_go_on(engine: dq.Engine, supervisor: Standin) -> None:
    run = engine.start(movie, 3)
    end(supervisor, run, "blocked", b"render(1) became render(2)")
    with pytest.raises(dq.RunBlocked, match="became"):
        run.result(20)
    assert not run.done()
    end(supervisor, run, "completed", Codec().dumps("five", ""))
    assert run.result(20) == "five"


def test_a_run_is_found_by_its_id(engine: dq.Engine, supervisor: Standin) -> None:
    run = engine.start(movie, 3, id="caf\u00e9")
    found = engine.get("cafe\u0301")  # the same, spelled in another way
    assert (found.id, found._number, found.workflow) == (run.id, run._number, run.workflow)
    with pytest.raises(dq.NoSuchRun, match="nobody"):
        engine.get("nobody")


@pytest.mark.parametrize(
    ("id", "rule"),
    [
        ("", "empty"),
        ("x" * 513, "512"),
        ("\U0001f3ac" * 300, "1024"),
        ("a\nb", "control"),
        ("a\0b", "control"),
        ("a\ud800b", "surrogate"),
        (7, "string"),
    ],
)
def test_run_ids_that_are_not_fit(engine: dq.Engine, supervisor: Standin, id: Any, rule: str) -> None:
    with pytest.raises(dq.BadRunId, match=rule):
        engine.start(movie, 3, id=id)
    assert not supervisor.of(frames.Start)


def test_run_ids_that_are_fit(engine: dq.Engine) -> None:
    for id in ("film \U0001f3ac", "x" * 512, "../etc; drop table", " "):
        assert engine.start(movie, 3, id=id).id == id


def test_new_ids_differ_and_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({ids.fresh() for _ in range(1000)}) == 1000
    made = []
    for seconds in (1.0, 1_700_000_000.0, 4_000_000_000.0):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: seconds)
        made.append(ids.fresh())
    assert made == sorted(made)


def test_start_and_submit_keep_steps_and_workflows_apart(engine: dq.Engine) -> None:
    with pytest.raises(TypeError, match=r"engine\.submit"):
        engine.start(double, 1)
    with pytest.raises(TypeError, match="not a workflow"):
        engine.start(add, 1)
    with pytest.raises(TypeError, match=r"engine\.start"):
        engine.submit(movie, 1)
    with pytest.raises(TypeError, match=r"engine\.start"):
        engine.map(movie, [1])


def test_a_start_that_was_not_on_disk_is_sent_again(db: Path) -> None:
    first = Standin(db, acks=False)
    first.replies[frames.Start] = lambda message: None
    with dq.Engine(db) as engine:
        runs: list[dq.Run[str]] = []
        starting = threading.Thread(target=lambda: runs.append(engine.start(movie, 3, id="m")))
        starting.start()
        first.wait_for(frames.Start)
        first.die()
        second = Standin(db, first.record)
        starting.join(20)
        assert [message.id for message in second.of(frames.Start)] == [message.id for message in first.of(frames.Start)]
        end(second, runs[0], "completed", Codec().dumps("yes", ""))
        assert runs[0].result(20) == "yes"
    second.die()


def test_a_run_that_is_waited_for_is_adopted_by_the_successor(db: Path) -> None:
    first = Standin(db)
    with dq.Engine(db) as engine:
        run = engine.start(movie, 3)
        with pytest.raises(TimeoutError):
            run.result(0)
        first.wait_for(frames.Watch)
        first.record.ended[run._number] = frames.Ended(run._number, "completed", Codec().dumps("late", ""))
        first.die()
        second = Standin(db, first.record)
        assert run.result(20) == "late"
        assert [message.runs for message in second.of(frames.Adopt)] == [[run._number]]
        assert not second.of(frames.Start)
    second.die()


def test_map_yields_results_in_order(engine: dq.Engine) -> None:
    assert list(engine.map(double, range(3000))) == [2 * number for number in range(3000)]
    assert list(engine.map(add, [1, 2, 3], itertools.count(10))) == [11, 13, 15]
    assert list(engine.map(lambda number: number + 1, [1, 2])) == [2, 3]
    assert list(engine.map(double, [])) == []


def test_map_takes_from_an_endless_iterable_what_it_needs(
    engine: dq.Engine, supervisor: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("FIRST", "LEAST", "MOST"):
        monkeypatch.setattr(stream, limit, 20)
    drawn = itertools.count()
    results = engine.map(double, drawn)
    assert [next(results) for _ in range(100)] == [2 * number for number in range(100)]
    results.close()  # type: ignore[attr-defined]
    engine.flush()
    assert next(drawn) <= 121
    withdrawn = [id for message in supervisor.of(frames.Cancel) for id in message.steps]
    assert withdrawn == supervisor.ids()[100:]


def test_map_holds_less_where_results_are_large(
    engine: dq.Engine, supervisor: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "FIRST", 8)
    monkeypatch.setattr(stream, "LEAST", 2)
    monkeypatch.setattr(stream, "HELD_MAX", 300_000)
    results = engine.map(bytes, itertools.repeat(100_000))
    for _ in range(50):
        assert len(next(results)) == 100_000
    assert len(supervisor.ids()) <= 60
    results.close()  # type: ignore[attr-defined]


def test_map_raises_what_a_step_raised_and_withdraws_the_rest(
    engine: dq.Engine, supervisor: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "FIRST", 10)
    results = engine.map(fail_at, range(100), itertools.repeat(3))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    engine.flush()
    assert [message.steps for message in supervisor.of(frames.Cancel)] == [supervisor.ids()[4:]]
    with pytest.raises(StopIteration):
        next(results)


def test_map_goes_on_with_a_successor(db: Path) -> None:
    first = Standin(db, works=False)
    with dq.Engine(db) as engine:
        results = engine.map(double, range(200))
        wait_until(lambda: len(first.record.steps) == 200)
        first.die()
        second = Standin(db, first.record)
        second.wait_for(frames.Adopt, frames.Resubmit)
        second.work()
        assert list(results) == [2 * number for number in range(200)]
    second.die()


def test_map_ends_when_the_engine_is_closed(engine: dq.Engine, supervisor: Standin) -> None:
    supervisor.works = False
    results = engine.map(double, range(5))
    engine.close()
    with pytest.raises(dq.SupervisorLost):
        next(results)


def test_what_carries_an_argument_is_taken_apart(engine: dq.Engine, supervisor: Standin) -> None:
    calls = [
        engine.submit(functools.partial(add, 1), 2),
        engine.submit(functools.partial(add, 1, right=5)),
        engine.submit(functools.partial(functools.partial(add, 3), right=1), right=4),
        engine.submit(Scale(3).times, 5),
        engine.submit(Scale(4).times, 5),
        engine.submit(Scale(3), 7),
    ]
    assert [call.result(20) for call in calls] == [3, 6, 7, 15, 20, -21]
    names = [define.name.split(":")[1] for define in supervisor.of(frames.Define)]
    assert sorted(names) == ["Scale.__call__", "Scale.times", "add"]


def test_a_closure_is_described_anew_each_time(engine: dq.Engine, supervisor: Standin) -> None:
    factor = 1

    def scale(number: int) -> int:
        return number * factor

    assert engine.submit(scale, 5).result(20) == 5
    factor = 2
    assert engine.submit(scale, 5).result(20) == 10
    factor = 1
    assert engine.submit(scale, 5).result(20) == 5
    assert len(supervisor.of(frames.Define)) == 2  # stored once by content


def test_a_function_that_closes_over_nothing_is_described_once(engine: dq.Engine) -> None:
    plus = lambda number: number + 1  # noqa: E731 -- what is tested
    assert engine.submit(plus, 5).result(20) == 6
    assert plus in engine._line.table.cache
    assert double not in engine._line.table.cache


def test_a_census(engine: dq.Engine) -> None:
    crew = engine.census()
    assert [(row.kind, row.pid, row.finished) for row in crew.rows] == [("worker", 123, 5)]
    assert (crew.pending, crew.claimed) == (2, 1)


def test_a_script_without_its_guard(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "IN_TEMPLATE", True)
    with pytest.raises(dq.GuardMissing, match="__main__"):
        dq.Engine(db)


@pytest.mark.parametrize("options", [{"workers": -1}, {"start_method": "clone"}, {"hang": 0.0}, {"grace": -1.0}])
def test_options_that_make_no_sense(db: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        dq.Engine(db, **options)
