"""The words: the project's own ones, nothing unfinished, no banners, and tests that never sleep."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.tidy.sources import ROOT, SHIPPED, files, functions, name, tree

_HERE = Path(__file__).resolve()
_CODE = [path for path in files(*SHIPPED, "tests", "benchmarks") if path != _HERE]
_TEXT = [*_CODE, *files("dq", suffix=".sql"), *files("docs", suffix=".md"), *ROOT.glob("*.md"), ROOT / "Makefile"]

_BANNED = {
    "unfinished": re.compile(r"\b(TODO|FIXME|XXX|HACK|WIP)\b"),
    "tickets and papers outside the project": re.compile(
        r"\b[Ii]ssue #?\d|\bSPEC\.md|\bDESIGN\b|\b[Pp]rototype\b|\bshared/reference"
    ),
    "how it came about": re.compile(r"\b(as (requested|discussed)|this session|in this phase)\b", re.IGNORECASE),
    "hollow": re.compile(
        r"\b(leverag(e|es|ing)|seamless(ly)?|robust(ly)?|blazing(ly)?|simply|obviously)\b", re.IGNORECASE
    ),
}
_BANNER = re.compile(r"#+\s*[-=*#~_]{3,}|#{4,}")


def test_no_banned_words() -> None:
    found = [
        f"{name(path)}: {match.group()!r} ({kind})"
        for path in _TEXT
        for kind, words in _BANNED.items()
        for match in words.finditer(path.read_text())
    ]
    assert not found


def test_no_banners() -> None:
    """A file long enough for banners wants to be two files."""
    assert not [f"{name(path)}:{line}" for path in _CODE for line in _banners(path.read_text())]


def test_a_banner_is_seen() -> None:
    assert list(_banners("x = 1  # not - one\n# --- the file ---\n#####\n'# ----'\n")) == [2, 3]


def test_every_module_says_what_it_is() -> None:
    assert not [name(path) for path in _CODE if path.stat().st_size and not ast.get_docstring(tree(path))]


def test_tests_never_sleep() -> None:
    """A body that a test hands to a step may take its time; the test itself waits for a condition."""
    sleeps = [
        f"{name(path)}: {function.name}, line {call.lineno}"
        for path in files("tests")
        for function in functions(path)
        if function.name.startswith("test_")
        for call in _own_calls(function)
        if ast.unparse(call.func).split(".")[-1] == "sleep"
    ]
    assert not sleeps


def _banners(text: str) -> Iterator[int]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and _BANNER.match(token.string):
            yield token.start[0]


def _own_calls(function: ast.AST) -> list[ast.Call]:
    """The calls in a function that are not in a function inside it."""
    calls: list[ast.Call] = []
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            calls += [child] if isinstance(child, ast.Call) else []
            calls += _own_calls(child)
    return calls
