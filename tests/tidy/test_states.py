"""The picture in the docs and the CHECKs of the schema say what model/states.py says."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dq.model.states import (
    RUN_FINAL,
    RUN_TRANSITIONS,
    STEP_FINAL,
    STEP_TRANSITIONS,
    Outcome,
    RunState,
    StepState,
)
from tests.tidy.sources import ROOT

Arrows = set[tuple[str, str]]


def _diagram(title: str) -> Arrows:
    """The arrows of the mermaid diagram under a heading of docs/design.md; [*] is the begin or the end."""
    section = (ROOT / "docs" / "design.md").read_text().split(f"### {title}\n", 1)[1]
    block = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", section, re.DOTALL)
    assert block, f"no diagram under {title}"
    return set(re.findall(r"^\s*(\S+) --> (\w+|\[\*\])", block.group(1), re.MULTILINE))


def _arrows(first: str, transitions: Iterable[tuple[str, Iterable[str]]], final: Iterable[str]) -> Arrows:
    return (
        {("[*]", str(first))}
        | {(str(state), str(after)) for state, follow in transitions for after in follow}
        | {(str(state), "[*]") for state in final}
    )


def _checked(table: str, column: str) -> set[str]:
    """The values that the schema's CHECK lets into a column."""
    schema = (ROOT / "dq" / "store" / "schema.sql").read_text()
    create = re.search(rf"CREATE TABLE {table}\s*\((.*?)\n\)\s*STRICT", schema, re.DOTALL)
    assert create, f"schema.sql has no table {table}"
    check = re.search(rf"CHECK\s*\(\s*{column}\s+(?:IN|=)(.*?)(?=CONSTRAINT|$)", create.group(1), re.DOTALL)
    assert check, f"{table}.{column} has no CHECK"
    return set(re.findall(r"'(\w+)'", check.group(1)))


def test_the_diagram_of_a_run() -> None:
    assert _diagram("A run") == _arrows(RunState.RUNNING, RUN_TRANSITIONS.items(), RUN_FINAL)


def test_the_diagram_of_a_step() -> None:
    assert _diagram("A step") == _arrows(StepState.PENDING, STEP_TRANSITIONS.items(), STEP_FINAL)


def test_final_states_are_those_that_nothing_follows() -> None:
    assert {state for state, follow in RUN_TRANSITIONS.items() if not follow} == RUN_FINAL
    assert {state for state, follow in STEP_TRANSITIONS.items() if not follow} == STEP_FINAL
    assert set(RUN_TRANSITIONS) == set(RunState)
    assert set(STEP_TRANSITIONS) == set(StepState)


def test_the_schema_knows_the_states_of_a_run() -> None:
    assert _checked("dq_run", "state") == {str(state) for state in RunState}


def test_the_schema_knows_how_a_step_ends() -> None:
    assert _checked("dq_result", "state") == {str(state) for state in STEP_FINAL}


def test_the_schema_knows_how_an_attempt_fails() -> None:
    assert _checked("dq_attempt", "outcome") == {str(outcome) for outcome in Outcome} - {"completed"}
