"""SQL lives in dq/store/*.sql and nowhere else."""

from __future__ import annotations

import ast
import re

import pytest

from tests.tidy.sources import SHIPPED, docstrings, files, name, tree

_STATEMENT = re.compile(
    r"\b(SELECT\b.+\bFROM|INSERT\s+(OR\s+\w+\s+)?INTO|REPLACE\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM"
    r"|(CREATE|DROP)\s+(UNIQUE\s+|TEMP\s+)?(TABLE|INDEX|VIEW|TRIGGER)|ALTER\s+TABLE)\b",
    re.IGNORECASE | re.DOTALL,
)
_CONTROL = re.compile(r"\s*(PRAGMA|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|ATTACH|VACUUM)\b")
_NAMED = re.compile(r"^-- name: (\w+)$", re.MULTILINE)

# Those who judge share no code with dq, so that they can't share a mistake: they read the file by themselves.
_JUDGES = {"dq/cli/demo/judge.py", "dq/cli/chaos/verdict.py"}
_USERS = {"dq/cli/chaos/steps.py"}  # who writes into a table of their own, as users do


def _sql_in(source: ast.Module, *patterns: re.Pattern[str]) -> list[str]:
    prose = docstrings(source)

    def caught(text: str) -> bool:
        return any(pattern.search(text) if pattern is _STATEMENT else pattern.match(text) for pattern in patterns)

    return [
        f"line {node.lineno}: {node.value[:60]!r}"
        for node in ast.walk(source)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose
        if caught(node.value)
    ]


def test_modules_hold_no_sql() -> None:
    """The store's modules may steer SQLite (PRAGMA, BEGIN, COMMIT), and even they read statements from files."""
    found = {
        name(path): _sql_in(tree(path), *([_STATEMENT] if path.parent.name == "store" else [_STATEMENT, _CONTROL]))
        for path in files(*SHIPPED)
        if name(path) not in _JUDGES | _USERS
    }
    assert not {path: sql for path, sql in found.items() if sql}


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ('x = "select a, b from t"', True),
        ('x = f"UPDATE {t} SET a = 1"', False),
        ('x = "update dq_run set state = 1"', True),
        ('x = "INSERT OR IGNORE INTO t VALUES (1)"', True),
        ('x = "BEGIN IMMEDIATE"', True),
        ('"""Select the row from the table."""', False),
        ('x = "begin with the select few"', False),
    ],
    ids=range(7),
)
def test_the_search_knows_sql_from_prose(text: str, caught: bool) -> None:
    assert bool(_sql_in(ast.parse(text), _STATEMENT, _CONTROL)) is caught


def test_every_named_statement_is_used_and_named_once() -> None:
    names = [found for path in files("dq/store", suffix=".sql") for found in _NAMED.findall(path.read_text())]
    assert names, "dq/store has no named statements"
    assert len(names) == len(set(names))
    words = {
        node.value
        for path in files("dq/store")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    } | {node.attr for path in files("dq/store") for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
    unused = set(names) - words
    assert not unused


def test_every_index_names_the_query_it_serves() -> None:
    lines = (files("dq/store", suffix="schema.sql")[0]).read_text().splitlines()
    indexes = [number for number, line in enumerate(lines) if re.match(r"CREATE (UNIQUE )?INDEX", line)]
    assert indexes
    assert all(lines[number - 1].startswith("--") for number in indexes)
