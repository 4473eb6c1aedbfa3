"""Plays a run again from its record: from all of it, and from each of its beginnings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.scripted import Crew, RunOnRecord, StepOnRecord

RUN = 7


def again(crew: Crew, live: Any, times: int = 1) -> None:
    """The whole record gives the same result as the first time, asks for nothing new, and ends nothing again."""
    bodies, ended = crew.bodies, len(crew.withdrawn)
    for _ in range(times):
        crew.close()
        crew.open().assign()
        assert crew.finish() == live
        assert not crew.asked
    assert crew.bodies == bodies
    assert len(crew.withdrawn) == ended


def from_every_beginning(crew: Crew, live: Any) -> None:
    """As if the host had been killed after each event, and then everything had ended in the same order."""
    tape, run = list(crew.tape), crew.runs[RUN]
    whole = dict(run.steps)
    crew.obeys = False
    for count in range(len(tape) + 1):
        _rewind(crew, run, whole, tape[:count])
        _go_on(crew, run, whole, tape[count:])
        assert crew.result() == live, f"the run went another way when it was cut off after {count} events"
        assert {_key(step) for step in run.steps.values()} == {_key(step) for step in whole.values()}


def _rewind(crew: Crew, run: RunOnRecord, whole: dict[int, StepOnRecord], past: list[tuple[str, int]]) -> None:
    crew.close()
    run.steps = {}
    run.seq = 0
    for what, id in past:
        ended = what == "ended"
        run.steps[id] = replace(whole[id]) if ended else replace(whole[id], seq=0, status=-1, payload=b"", at=0)
        run.seq += ended
    crew.open().assign()


def _go_on(crew: Crew, run: RunOnRecord, whole: dict[int, StepOnRecord], rest: list[tuple[str, int]]) -> None:
    for what, id in rest:
        old = whole[id]
        if what == "ended":
            crew.until(lambda: run.end is not None or _key(old) in map(_key, run.steps.values()))  # noqa: B023
            if run.end is not None:
                return  # what ends after the run's code has returned is heard by nobody
            crew.now = old.at - 1
            step = next(step for step in run.steps.values() if _key(step) == _key(old))
            crew.commit([(step, old.status, old.payload)])
    crew.until(lambda: run.end is not None)


def _key(step: StepOnRecord) -> tuple[str, str, int]:
    return step.scope, step.name, step.occurrence
