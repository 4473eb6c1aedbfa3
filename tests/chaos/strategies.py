"""Random programs as hypothesis draws them: terms of the language of `dq/cli/chaos/programs.py`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from dq.cli.chaos.programs import DROPS, VERY_WIDE, WIDE, Program, Term

_FEW = st.integers(1, 3)
_ITEMS = st.one_of(st.integers(1, WIDE), st.integers(1, WIDE), st.just(VERY_WIDE))
_MILLISECONDS = st.sampled_from([1, 5, 20, 80])
_HOW = st.sampled_from(["def", "async"])


def _word(word: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Term]:
    return st.tuples(*parts).map(lambda rest: [word, *rest])


LEAVES: list[st.SearchStrategy[Term]] = [
    *map(_word, ("step", "signal", "self", "tell", "slow", "draw", "publish", "write", "order", "dedup", "deadline")),
    *[_word(word, _ITEMS) for word in ("map", "each", "io")],
    *[_word(word, st.integers(1, WIDE)) for word in ("queued", "cursor")],
    *[_word(word, _FEW) for word in ("retry", "fail", "undo", "crash")],
    *[_word(word, _MILLISECONDS) for word in ("sleep", "late", "delay")],
    _word("drop", st.sampled_from(DROPS)),
    _word("big", st.sampled_from([4, 300])),
]


def _larger(smaller: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    some = st.lists(smaller, min_size=1, max_size=4)
    chapters = st.lists(smaller, min_size=1, max_size=2)
    return st.one_of(_word("seq", some), _word("par", some), _word("child", _HOW, chapters))


TERMS = st.recursive(st.one_of(LEAVES), _larger, max_leaves=8)
PROGRAMS: st.SearchStrategy[tuple[str, Program]] = st.tuples(_HOW, st.lists(TERMS, min_size=1, max_size=3))
