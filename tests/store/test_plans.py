"""No query of the supervisor reads a whole table that grows with the file's age."""

from __future__ import annotations

import re

import pytest

from dq.store import bulk, sql
from dq.store.store import Store

# What reads tables that stay small, and what only people ask.
_MAY_SCAN = {
    "open_claims",
    "open_batches",
    "functions",
    "contexts",
    "count_runs",
    "count_steps",
    "list_runs",
    "schedules",
    "list_schedules",
    "schedules_aside",
    "parked_steps",
    "distant_terms",
    "progress",
    "queues",
    "begins",
}
_SCAN = re.compile(r"SCAN (\w+)")
# Arrays, open claims, the schema itself, and a view whose parts are searched.
_HARMLESS = {
    "json_each",
    "entry",
    "claim",
    "dq_claim",
    "claimed",
    "copied",
    "CONSTANT",
    "sqlite_master",
    "sqlite_schema",
    "dq_attempts",
}


def _plan(store: Store, statement: str) -> list[str]:
    values = [None] * 99
    numbered = [int(number) for number in re.findall(r"\?(\d)", statement)]
    count = max(numbered) if numbered else statement.count("?")
    return [str(row[3]) for row in store._opened.execute("EXPLAIN QUERY PLAN " + statement, values[:count])]


@pytest.mark.parametrize("name", sorted(sql.SQL.keys() - {"begin", "commit", "rollback"}))
def test_queries_search(store: Store, name: str) -> None:
    plan = _plan(store, sql.SQL[name])
    scanned = {table for line in plan for table in _SCAN.findall(line)} - _HARMLESS
    if name not in _MAY_SCAN:
        assert not scanned, plan


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("unfinished_runs", "dq_run_unfinished"),
        ("open_flow_functions", "dq_run_unfinished"),
        ("max_seqs", "dq_run_unfinished"),
        ("run_steps", "dq_step_run"),
        ("run_progress", "dq_step_run"),
        ("open_flow_steps", "dq_step_run"),
        ("next_seq", "dq_step_run"),
    ],
)
def test_indexes_serve_their_queries(store: Store, name: str, index: str) -> None:
    assert any(index in line for line in _plan(store, sql.SQL[name]))


@pytest.mark.parametrize("name", ["open_steps", "open_flow_steps", "run_steps", "find_run"])
def test_hot_queries_sort_nothing(store: Store, name: str) -> None:
    assert not [line for line in _plan(store, sql.SQL[name]) if "TEMP B-TREE" in line]


def test_a_statement_is_widened_row_by_row() -> None:
    wide = bulk.widen(sql.SQL["insert_result"], 3)
    assert wide.count("?") == 27
    assert wide.count("(?, ?, ?, ?, ?, ?, ?, ?, ?)") == 3


@pytest.mark.parametrize(
    "text", ["-- name: a\n-- name: b\nSELECT 1;\n", "-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n"]
)
def test_statements_have_one_name_each(text: str) -> None:
    with pytest.raises(ValueError, match="'a'"):
        sql.parse(text)
