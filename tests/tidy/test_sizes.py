"""A file owns one noun and a function one thought; these limits keep it so."""

from __future__ import annotations

import ast
import statistics

from tests.tidy.sources import SHIPPED, files, functions, name

MODULE_LIMIT = 400
MEDIAN_LIMIT = 150
FUNCTION_LIMIT = 50

_ALL = files(*SHIPPED, "tests", "benchmarks")


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring: explaining at length is no fault."""
    last = function.end_lineno or function.lineno
    length = last - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def test_no_module_is_too_long() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in _ALL}
    assert not {path: length for path, length in lengths.items() if length > MODULE_LIMIT}


def test_the_median_module_is_short() -> None:
    lengths = [len(path.read_text().splitlines()) for path in files(*SHIPPED) if path.name != "__init__.py"]
    assert statistics.median(lengths) < MEDIAN_LIMIT


def test_no_function_is_too_long() -> None:
    lengths = {f"{name(path)}: {function.name}": _length(function) for path in _ALL for function in functions(path)}
    assert not {function: length for function, length in lengths.items() if length >= FUNCTION_LIMIT}


def test_length_does_not_count_the_docstring() -> None:
    (function,) = ast.parse('def f():\n    """One.\n\n    Two.\n    """\n    return 1\n').body
    assert isinstance(function, ast.FunctionDef)
    assert _length(function) == 2
