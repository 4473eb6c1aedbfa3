"""Run ids: what is refused, with the rule; and what the same id means when it is used again."""

from __future__ import annotations

from typing import Any

import pytest

import dq
from tests.process import misfits


@pytest.mark.parametrize(
    ("id", "rule"),
    [
        ("", "may not be empty"),
        ("x" * 10_240, "may have 512 characters; this one has 10240"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x7fb", "control character"),
        ("\ud800", "half of a surrogate pair"),
        ("\U0001f3ac" * 400, "may have 1024 bytes in UTF-8; this one has 1600"),
        (7, "is a string, not int"),
        (b"r", "is a string, not bytes"),
    ],
    ids=["empty", "long", "nul", "newline", "delete", "surrogate", "bytes-long", "int", "bytes"],
)
def test_ids_that_are_refused(engine: dq.Engine, id: Any, rule: str) -> None:
    with pytest.raises(dq.BadRunId, match=rule) as error:
        engine.start(misfits.doubled, 1, id=id)
    assert len(str(error.value)) < 300, "the message does not drown in the id"
    with pytest.raises(dq.BadRunId, match=rule):
        engine.get(id)
    assert engine.start(misfits.doubled, 1, id="fine").result(20) == 2


@pytest.mark.parametrize(
    "id", ["\U0001f3ac", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "x" * 512, "a/b c'd\"e%", "-", "\u00e9t\u00e9"],
    ids=["emoji", "family", "longest", "punctuation", "dash", "accents"],
)  # fmt: skip
def test_ids_that_are_taken(engine: dq.Engine, id: str) -> None:
    assert engine.start(misfits.doubled, 4, id=id).result(20) == 8
    assert engine.get(id).result(20) == 8
    assert engine.get(id).id == id


def test_two_spellings_of_one_text_are_one_id(engine: dq.Engine) -> None:
    assert engine.start(misfits.doubled, 4, id="\u00e9").result(20) == 8
    assert engine.get("e\u0301").id == "\u00e9"
    with pytest.raises(dq.RunConflict):
        engine.start(misfits.doubled, 5, id="e\u0301")


def test_a_run_that_is_not_there(engine: dq.Engine) -> None:
    with pytest.raises(dq.NoSuchRun, match="dq ls"):
        engine.get("nobody")


def test_the_same_id_with_other_arguments_shows_both(engine: dq.Engine) -> None:
    assert engine.start(misfits.doubled, 4, id="r").result(20) == 8
    assert engine.start(misfits.doubled, 4, id="r").result(20) == 8
    with pytest.raises(dq.RunConflict) as conflict:
        engine.start(misfits.doubled, 5, id="r")
    assert "On record: tests.process.misfits:doubled(4)." in str(conflict.value)
    assert "Asked for: tests.process.misfits:doubled(5)." in str(conflict.value)
    assert "Use another id" in str(conflict.value)
    with pytest.raises(dq.RunConflict, match=r"doubled\(4\).*locked_result\(\)"):
        engine.start(misfits.locked_result, id="r")
    assert engine.get("r").result(20) == 8


def test_a_conflict_over_large_arguments_is_told_in_brief(engine: dq.Engine) -> None:
    """What is on record lies in a side file, and the message shows the beginning of each."""
    assert engine.start(misfits.measured, b"a" * 1_000_000, id="r").result(20) == 1_000_000
    with pytest.raises(dq.RunConflict) as conflict:
        engine.start(misfits.measured, b"b" * 1_000_000, id="r")
    assert "measured(b'aaaa" in str(conflict.value)
    assert "measured(b'bbbb" in str(conflict.value)
    assert len(str(conflict.value)) < 1500
