"""The player: what a run does with its record and other code, without anybody behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dq
from dq.executor import functions
from dq.executor.frames import Assign, Finish
from dq.flow.decorators import Workflow
from dq.flow.player import Delivery, Player
from dq.flow.verdict import Verdict
from tests.unit import scripted
from tests.unit.flowsteps import both, chain, double, fail, fan


def player(
    crew: scripted.Crew, workflow: Workflow[..., Any], hear: Callable[[Delivery], None] | None = None, **told: Any
) -> Player:
    run = crew.runs[7]
    rows = [
        (s.id, s.function, s.scope, s.occurrence, s.fingerprint, s.args, s.seq, s.status, s.payload, s.at)
        for s in run.steps.values()
    ]
    defines = {message.number: message for message in crew.defines.values()}
    assign = Assign(run.id, run.name, run.function, run.args, scripted.NOW, **told)
    return Player(assign, defines, rows, lambda: functions.body_of(workflow), crew.codec.folder, hear)


def play(crew: scripted.Crew, workflow: Workflow[..., Any], **told: Any) -> Verdict:
    return player(crew, workflow, **told).play()


def test_a_finished_run_comes_to_the_same(crew: scripted.Crew) -> None:
    run = crew.start(both, 1, 2)
    crew.complete(*reversed(crew.until_asked(2)))
    live, bodies = crew.finish(), crew.bodies
    assert isinstance(run.end, Finish)
    heard: list[Delivery] = []
    played = player(crew, both, heard.append)
    verdict = played.play()
    assert (verdict.outcome, verdict.result, verdict.asked, verdict.left_over) == ("finished", live, [], [])
    assert played.matches("completed", run.end.payload)
    assert not played.matches("completed", crew.codec.dumps([0], "x"))
    assert not played.matches("failed", run.end.payload)
    assert [(one.seq, one.call, one.came) for one in heard] == [(1, "double(2)", "4"), (2, "double(1)", "2")]
    assert crew.bodies == bodies


def test_an_unfinished_run_waits_and_starts_nothing(crew: scripted.Crew, tmp_path: Path) -> None:
    crew.start(chain, 3)
    crew.complete(crew.until_asked(1)[0])
    crew.until_asked(2)
    verdict = play(crew, chain)
    assert verdict.outcome == "waiting"
    assert [str(spot) for spot in verdict.waits_for] == ["tests.unit.flowsteps:double, call 2"]
    assert verdict.waits_for[0].step == crew.asked[1].id
    assert not verdict.asked
    assert verdict.goes_on
    assert play(crew, large).outcome == "waiting"
    assert not (tmp_path / "blobs").exists()
    assert len(crew.asked) == 2


@dq.workflow
def large(count: int) -> int:
    return double(0) + weigh(bytes(1 << 20))


@dq.step
def weigh(data: bytes) -> int:
    return len(data)


def test_a_block_is_the_one_that_a_host_would_meet(crew: scripted.Crew) -> None:
    crew.start(chain, 2)
    crew.complete(crew.until_asked(1)[0])
    verdict = play(crew, tenfold)
    crew.close()
    crew.open().assign(workflow=tenfold)
    assert verdict.outcome == "blocked"
    assert verdict.reason == crew.blocked()
    assert "args[0]: 0 -> 5" in verdict.reason
    assert "dq resume ID" in verdict.reason
    assert not verdict.goes_on


@dq.workflow
def tenfold(count: int) -> int:
    return double(5)


def test_a_renamed_step_is_noted(crew: scripted.Crew) -> None:
    crew.start(chain, 1)
    crew.finish()
    [note] = play(crew, renamed).notes()
    assert "twice, call 1" in note
    assert "double, call 1" in note
    [note] = play(crew, empty).notes()
    assert "would end without having asked for" in note


@dq.step
def twice(n: int) -> int:
    return 2 * n


@dq.workflow
def renamed(count: int) -> int:
    return twice(0)


@dq.workflow
def empty(count: int) -> int:
    return 0


def test_a_failure_is_expected_where_the_record_has_it(crew: scripted.Crew) -> None:
    crew.start(thrower)
    crew.complete(*crew.until_asked(1))
    verdict = play(crew, thrower)
    assert (verdict.outcome, verdict.state, verdict.goes_on) == ("failed", "failed", True)
    assert isinstance(verdict.error, RuntimeError)
    assert "as its record says" in verdict.notes()[0]
    verdict = play(crew, clumsy)
    assert (verdict.outcome, verdict.goes_on) == ("failed", False)
    assert "ZeroDivisionError" in verdict.reason
    assert "line" in verdict.reason


@dq.workflow
def thrower() -> None:
    try:
        fail("bang")
    except ValueError as error:
        raise RuntimeError("it went wrong") from error


@dq.workflow
def clumsy() -> float:
    return 1 / 0


def test_a_cancel_is_heard(crew: scripted.Crew) -> None:
    crew.start(chain, 1)
    crew.until_asked(1)
    verdict = play(crew, chain, cancel=(1, scripted.NOW, "enough"))
    assert (verdict.outcome, verdict.state, verdict.goes_on) == ("failed", "cancelled", True)


def test_who_leaves_unwinds_the_code(crew: scripted.Crew) -> None:
    crew.start(tidy, 1)
    crew.until_asked(1)
    played = player(crew, tidy)
    assert played.play().outcome == "waiting"
    _unwound.clear()
    played.leave()
    assert _unwound == [1]


_unwound: list[int] = []


@dq.workflow
def tidy(count: int) -> int:
    try:
        return double(count)
    finally:
        _unwound.append(count)


def test_async_runs_are_played(crew: scripted.Crew) -> None:
    crew.start(branches, 3)
    live = crew.finish()
    assert play(crew, branches).result == live == 6


@dq.workflow
async def branches(count: int) -> int:
    import asyncio

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(later(n)) for n in range(count)]
    return sum(task.result() for task in tasks)


@dq.step
async def later(n: int) -> int:
    return 2 * n


def test_a_fork_sees_the_chance_of_its_origin(crew: scripted.Crew) -> None:
    crew.start(gambler)
    crew.finish()
    asked = play(crew, gambler, origin="7 run-7").asked
    assert not asked
    assert play(crew, gambler, origin="8 run-8").outcome == "blocked"


@dq.workflow
def gambler() -> int:
    return double(int(dq.random() * 1_000_000))


def test_a_signature_that_takes_the_recorded_arguments_no_more_blocks(crew: scripted.Crew) -> None:
    crew.start(chain, 2)
    crew.complete(crew.until_asked(1)[0])
    assert "now:      narrow()" in play(crew, narrow).reason
    crew.close()
    crew.open().assign(workflow=narrow)
    reason = crew.blocked()
    assert "does not take the arguments that are recorded" in reason
    assert "recorded: narrow(2)" in reason
    crew.assign(workflow=chain)
    assert crew.finish() == 2


def test_a_run_that_never_fitted_fails(crew: scripted.Crew) -> None:
    run = crew.start(narrow, 2)
    crew.until(lambda: run.end is not None)
    assert isinstance(run.end, Finish)
    assert run.end.state == "failed"


@dq.workflow
def narrow() -> int:
    return double(1)


def test_a_type_error_of_the_workflow_itself_is_no_misfit(crew: scripted.Crew) -> None:
    crew.start(chain, 1)
    crew.complete(*crew.until_asked(1))
    verdict = play(crew, mistyped)
    assert (verdict.outcome, type(verdict.error)) == ("failed", TypeError)


@dq.workflow
def mistyped(count: int) -> int:
    return len(count)  # type: ignore[arg-type]


def test_a_large_fan_is_played(crew: scripted.Crew) -> None:
    crew.start(fan, 500)
    assert play(crew, fan).outcome == "waiting"
    crew.finish()
    assert play(crew, fan).result == [2 * n for n in range(500)]


def test_the_ids_of_a_run_rise_whatever_its_host_has_leased(crew: scripted.Crew) -> None:
    run = crew.start(chain, 2)
    crew.complete(crew.until_asked(1)[0])
    crew.until_asked(2)
    [first, _] = run.steps.values()
    first.id = 5000  # as in a fork: its copied steps are younger than what the host has leased
    run.steps = {5000: first}
    crew.close()
    crew.open().assign()
    assert crew.until_asked(1)[0].id > 5000
    assert crew.finish() == 2
