"""What the demo counts as a fault, and how much work it makes of a small folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dq.cli.demo.plan import KINDS, Strike, draw
from dq.cli.demo.stage import Outcome, Play, find_faults

PLAN = draw(8, seed=1)


def outcome(**changes: Any) -> Outcome:
    kills = {kind: sum(strike.kind == kind for strike in PLAN) for kind in KINDS}
    values: dict[str, Any] = {
        "files": 9, "steps": 13, "kills": kills, "in_body": kills["worker"], "retried": 4, "lost": 0, "repeated": 0,
        "identical": True, "seconds": 1.0, "faults": [],
    }  # fmt: skip
    return Outcome(**{**values, **changes})


def test_an_outcome_as_planned_has_no_faults() -> None:
    assert find_faults(outcome(), PLAN) == []


@pytest.mark.parametrize("kind", KINDS)
def test_kills_that_did_not_happen_are_a_fault(kind: str) -> None:
    few = outcome()
    few.kills[kind] -= 1
    assert any(f"kills of kind {kind}" in fault for fault in find_faults(few, PLAN))


def test_another_result_than_the_plain_one_is_a_fault() -> None:
    assert any("differs" in fault for fault in find_faults(outcome(identical=False), PLAN))


def test_workers_that_were_not_killed_in_a_body_are_a_fault() -> None:
    few = outcome()
    few.in_body = (few.kills["worker"] - 1) // 2
    assert any("in the middle of a body" in fault for fault in find_faults(few, PLAN))


def test_a_small_folder_is_measured_more_than_once_and_most_of_all_where_much_is_killed(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text("x = 1\n" * 1000)

    def passes(files: int, plan: list[Strike]) -> int:
        return Play(str(tmp_path), ["small.py"] * files, str(tmp_path / "x.db"), 1, plan, 1).passes

    assert passes(1, PLAN) > passes(1, []) > passes(10_000, []) == 1
