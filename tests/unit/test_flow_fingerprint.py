"""Fingerprints: equal structure, equal bytes, in any process; a different structure shows."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import os
import pathlib
import pickle
import subprocess
import sys
import uuid
from collections import Counter, OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dq.flow.fingerprint import SIZE, fingerprint


def mark(value: Any) -> bytes:
    return fingerprint((value,), {})


@dataclasses.dataclass
class Point:
    x: Any
    y: Any
    cache: Any = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass
class Other:
    x: Any
    y: Any


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Opaque:
    def __init__(self, value: int) -> None:
        self.value = value


class Pair(NamedTuple):
    x: int
    y: int


_NAN = float("nan")
_NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
_DIFFERENT: list[Any] = [
    *(None, True, False, 0, 1, -1, 255, 10**5000, 0.0, -0.0, 1.0, _NAN, float("inf"), 1j),
    *("", "1", "a", b"", b"1", b"a", bytearray(b"a"), memoryview(b"a")),
    *([], [1], [[1]], [1, 2], [2, 1], (), (1,), (1, 2), {}, {1: 2}, {2: 1}, set(), {1}, frozenset(), frozenset({1})),
    *(Point(1, 2), Point(2, 1), Other(1, 2), Pair(1, 2), Colour.RED, Colour.BLUE, Counter("aab"), OrderedDict(a=1)),
    *(range(3), range(1, 3), decimal.Decimal("1.0"), decimal.Decimal("1.00"), uuid.UUID(int=1), pathlib.PurePath("a")),
    *(
        dt.date(2026, 1, 2),
        _NOON.replace(tzinfo=None),
        _NOON,
        dt.timedelta(1),
        dt.time(1),
    ),
    *(int, str, mark, len, functools.partial(mark, 1), functools.partial(mark, 2), ..., Opaque(1)),
    *(np.arange(6), np.arange(6).reshape(2, 3), np.arange(6.0), np.float64(1), np.int32(1)),
    *(list(range(100_000)), list(range(100_001)), "a" * 1000, "a" * 1001),
]


def test_different_values_have_different_marks() -> None:
    marks = [mark(value) for value in _DIFFERENT]
    twins = [
        (_DIFFERENT[index], _DIFFERENT[marks.index(one)])
        for index, one in enumerate(marks)
        if marks.index(one) != index
    ]
    assert not twins
    assert {len(one) for one in marks} == {SIZE}


@pytest.mark.parametrize("index", range(len(_DIFFERENT)))
def test_what_a_pickle_brings_back_has_the_same_mark(index: int) -> None:
    value = _DIFFERENT[index]
    if not isinstance(value, memoryview):
        assert mark(pickle.loads(pickle.dumps(value, 5))) == mark(value)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers() | st.text() | st.binary())
    ),
    max_leaves=40,
)


@given(_values)
def test_sharing_and_copying_do_not_show(value: Any) -> None:
    assert mark(copy.deepcopy(value)) == mark(value)
    assert mark(pickle.loads(pickle.dumps(value, 5))) == mark(value)
    assert mark([value, value]) == mark([value, copy.deepcopy(value)])


@given(_values, _values)
def test_places_count(one: Any, other: Any) -> None:
    same = mark(one) == mark(other)
    assert (mark([one, other]) == mark([other, one])) == same
    assert (fingerprint((one,), {"k": other}) == fingerprint((other,), {"k": one})) == same


def test_the_order_of_sets_dicts_and_keywords_does_not_show() -> None:
    assert mark({"a": 1, "b": {1, 2}}) == mark({"b": {2, 1}, "a": 1})
    assert fingerprint((), {"a": 1, "b": 2}) == fingerprint((), {"b": 2, "a": 1})


def test_positional_and_keyword_arguments_differ() -> None:
    assert fingerprint((1,), {}) != fingerprint((), {"x": 1})
    assert fingerprint((1, 2), {}) != fingerprint(((1, 2),), {})


def test_fields_left_out_of_comparison_do_not_count() -> None:
    assert mark(Point(1, 2, cache=3)) == mark(Point(1, 2, cache=4))


def test_values_without_structure_count_by_type() -> None:
    assert mark(Opaque(1)) == mark(Opaque(2))
    assert mark(Opaque(1)) != mark(object())


def test_the_layout_of_an_array_does_not_show_and_its_items_do() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert mark(np.asfortranarray(array)) == mark(array)
    assert mark(array.T) != mark(array)
    assert mark(array[:, ::2]) == mark(array[:, ::2].copy())
    assert mark(np.array([1, "a"], object)) == mark(np.array([1, "a"], object))
    assert mark(np.array([1, "a"], object)) != mark(np.array([1, "b"], object))
    assert mark(np.zeros((0, 3))) != mark(np.zeros((3, 0)))


def test_cycles_end() -> None:
    def ring(length: int) -> list[Any]:
        first: list[Any] = []
        last = first
        for _ in range(length - 1):
            last.append([])
            last = last[0]
        last.append(first)
        return first

    assert mark(ring(3)) == mark(ring(3))
    assert mark(ring(3)) != mark(ring(4))


def test_deep_nesting_and_sharing_take_no_time() -> None:
    deep: list[Any] = []
    wide: list[Any] = [1]
    for _ in range(100_000):
        deep = [deep]
    for _ in range(400):
        wide = [wide, wide]
    assert mark(deep) != mark(wide)


def test_a_tangle_counts_by_type() -> None:
    nodes: list[list[Any]] = [[] for _ in range(30)]
    for node in nodes:
        node.extend(nodes)
    assert fingerprint((nodes, 1), {}) == fingerprint((nodes, 2), {})


def test_a_property_that_raises_does_not_stop_it() -> None:
    class Shy(list[int]):
        def __iter__(self) -> Any:
            raise RuntimeError

    assert len(mark(Shy([1]))) == SIZE


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_the_hash_seed_does_not_show(seed: str) -> None:
    code = (
        "from dq.flow.fingerprint import fingerprint as f;"
        "print(f(({'a','b','c',1,None}, {'x': {'y','z'}}), {'k': frozenset('dq')}).hex())"
    )
    environ = os.environ | {"PYTHONHASHSEED": seed}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    here = fingerprint(({"a", "b", "c", 1, None}, {"x": {"y", "z"}}), {"k": frozenset("dq")})
    assert told.stdout.strip() == here.hex()


def test_a_script_s_classes_are_the_same_where_dq_imports_it() -> None:
    running = type("Thing", (), {"__module__": "__main__"})
    imported = type("Thing", (), {"__module__": "__dq_main__"})
    assert mark(running()) == mark(imported())
    assert mark(running) == mark(imported)
