"""Users' statements reach users' own tables only, and do what they do together with the group or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest

from dq.errors import EffectFailed, Fenced
from dq.store.group import Group
from dq.store.guard import Statement
from dq.store.sql import SQL
from dq.store.store import Store
from tests.store import rows, tracing

_TABLE = "CREATE TABLE account (name TEXT PRIMARY KEY, cents INTEGER CHECK (cents >= 0))"
_ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


def _do(store: Store, *statements: str | Statement, group: Group | None = None) -> None:
    told = [Statement(each, ()) if isinstance(each, str) else each for each in statements]
    store.commit_effects(told, lambda: group or Group())


def _look(path: str, statement: str) -> list[tuple[Any, ...]]:
    file = connect(f"file:{path}?mode=ro", uri=True)
    try:
        return file.execute(statement).fetchall()
    finally:
        file.close()


@pytest.fixture
def ready(store: Store) -> Store:
    """A store with a table of a user's and a claim on step 1."""
    _do(store, _TABLE, "INSERT INTO account VALUES ('ann', 100), ('bob', 0)")
    store.commit(rows.batch(1, 2))
    store.commit(rows.claim(rows.epoch(store, 1), [1, 2]))
    return store


def test_statements_and_group_are_one_transaction(ready: Store, path: str) -> None:
    group = rows.results(rows.epoch(ready, 1), [1])
    _do(ready, "UPDATE account SET cents = 50 WHERE name = 'ann'", group=group)
    assert _look(path, "SELECT cents FROM account WHERE name = 'ann'") == [(50,)]
    assert _look(path, "SELECT step FROM dq_result") == [(1,)]


def test_what_users_triggers_change_is_not_counted_as_dq_s(ready: Store, path: str) -> None:
    _do(ready, "CREATE TABLE log (name)")
    _do(ready, "CREATE TRIGGER t AFTER UPDATE ON account BEGIN INSERT INTO log VALUES (new.name); END")
    update = Statement("UPDATE account SET cents = cents + 1", (), 2)
    _do(ready, update, group=rows.results(rows.epoch(ready, 1), [1]))
    assert _look(path, "SELECT count(*) FROM log") == [(2,)]


def test_a_group_that_does_not_fit_takes_the_effects_along(ready: Store, path: str) -> None:
    with pytest.raises(Fenced):
        _do(ready, "DELETE FROM account", group=rows.results(rows.epoch(ready, 9), [1]))
    assert _look(path, "SELECT count(*) FROM account") == [(2,)]


def test_a_statement_that_fails_takes_the_others_along_and_nothing_is_decided(ready: Store, path: str) -> None:
    def decide() -> Group:
        raise AssertionError("nothing is to be decided")

    told = [Statement("DELETE FROM account WHERE name = 'bob'", ()), Statement("UPDATE account SET cents = -1", ())]
    with pytest.raises(EffectFailed, match=r"statement 2 of 2.*CHECK constraint failed: cents >= 0") as caught:
        ready.commit_effects(told, decide)
    assert caught.value.statement == "UPDATE account SET cents = -1"
    assert _look(path, "SELECT count(*) FROM account") == [(2,)]
    ready.commit(rows.results(rows.epoch(ready, 1), [1]))


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("INSERT INTO dq_result VALUES (1, 1, 'completed', 1, 1, 1, 1, 1, x'')", "dq_result is dq's own"),
        ("UPDATE DQ_ENGINE SET boot_epoch = 0", "dq's own"),
        ("DELETE FROM dq_claim", "dq_claim is dq's own"),
        ("UPDATE account SET cents = (SELECT boot_epoch FROM dq_engine)", "read the views"),
        ("SELECT args FROM dq_run", "read the views"),
        ("DROP TABLE dq_run", "dq_ are dq's own"),
        ("DROP VIEW dq_runs", "dq_ are dq's own"),
        ("DROP INDEX dq_run_unfinished", "dq_ are dq's own"),
        ("CREATE TABLE dq_mine (a)", "dq_ are dq's own"),
        ("CREATE INDEX mine ON dq_step (args)", "dq_ are dq's own"),
        ("CREATE TRIGGER t AFTER INSERT ON dq_result BEGIN DELETE FROM account; END", "dq_ are dq's own"),
        ("ALTER TABLE dq_run ADD COLUMN mine", "dq_ are dq's own"),
        ("ALTER TABLE account RENAME TO dq_account", "dq_ are dq's own"),
        ("CREATE TEMP TABLE dq_step (a)", "nothing that a statement of a step may do"),
        ("CREATE TEMP VIEW v AS SELECT 1", "nothing that a statement of a step may do"),
        ("CREATE VIRTUAL TABLE f USING fts5(a)", "virtual tables"),
        ("INSERT INTO sqlite_schema VALUES ('table', 'a', 'a', 0, '')", "may not be modified"),
        ("COMMIT", "dq's to begin and to end"),
        ("ROLLBACK", "dq's to begin and to end"),
        ("SAVEPOINT s", "dq's to begin and to end"),
        ("PRAGMA writable_schema = 1", "PRAGMA"),
        ("SELECT * FROM pragma_table_info('account')", "PRAGMA"),
        ("ATTACH 'other.db' AS other", "no other file"),
        ("DETACH main", "no other file"),
        ("VACUUM", "VACUUM"),
        ("ANALYZE", "ANALYZE"),
        ("SELECT load_extension('x')", "no extension"),
        ("DELETE FROM account; DELETE FROM account", "several statements"),
        ("DELETE FROM account; COMMIT", "dq's to begin and to end"),
        ("-- nothing", "no statement"),
        ("SELEC", "syntax error"),
        ("SELECT randomblob(1000000000)", "too big"),
        ("INSERT INTO account VALUES (?, ?)", "number of bindings"),
        (SQL["delete_claim"].replace("?1", "1"), "dq_claim is dq's own"),
    ],
)
def test_what_is_not_theirs_is_out_of_reach(ready: Store, path: str, statement: str, why: str) -> None:
    before = _look(path, "SELECT * FROM sqlite_schema"), _look(path, "SELECT * FROM account")
    with pytest.raises(EffectFailed) as caught:
        _do(ready, "UPDATE account SET cents = 7", statement)
    assert why in str(caught.value)
    assert "Nothing is written" in str(caught.value)
    assert (_look(path, "SELECT * FROM sqlite_schema"), _look(path, "SELECT * FROM account")) == before
    ready.commit(rows.results(rows.epoch(ready, 1), [1]))


def test_a_trigger_that_leads_to_dq_s_tables_is_denied_where_it_would_run(ready: Store, path: str) -> None:
    _do(ready, "CREATE TRIGGER t AFTER UPDATE ON account BEGIN DELETE FROM dq_claim; END")
    with pytest.raises(EffectFailed, match=r"dq_claim is dq's own, and only dq writes to it \(the trigger t"):
        _do(ready, "UPDATE account SET cents = 1")
    assert _look(path, "SELECT count(*) FROM dq_claim") == [(1,)]


def test_a_view_that_leads_to_dq_s_tables_is_denied_where_it_is_read(ready: Store) -> None:
    _do(ready, "CREATE VIEW peek AS SELECT args FROM dq_run")
    with pytest.raises(EffectFailed, match="read the views"):
        _do(ready, "INSERT INTO account SELECT args, 1 FROM peek")


def test_dq_s_own_statements_stay_out_of_reach_when_they_are_compiled_already(ready: Store) -> None:
    statement = SQL["cancel_run"]
    ready._opened.execute(statement, (1, 1, "", 1, 1))
    with pytest.raises(EffectFailed, match="dq's own"):
        _do(ready, Statement(statement, (1, 1, "", 1, 1)))


def test_the_documented_views_can_be_read(ready: Store, path: str) -> None:
    for view in ("dq_runs", "dq_steps", "dq_attempts"):
        _do(ready, f"INSERT INTO account SELECT '{view}', count(*) FROM (SELECT * FROM {view})")
    _do(ready, "INSERT INTO account SELECT state, id FROM dq_steps WHERE id = 1")
    assert _look(path, "SELECT cents FROM account WHERE name = 'claimed'") == [(1,)]


def test_tables_of_one_s_own_can_be_made_changed_and_dropped(ready: Store, path: str) -> None:
    _do(
        ready,
        "CREATE TABLE item (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE)",
        "CREATE INDEX by_name ON item (name, id)",
        "INSERT INTO item (name) VALUES ('a'); -- and no more",
        "ALTER TABLE item ADD COLUMN size",
        "ALTER TABLE item RENAME COLUMN size TO weight",
        "ALTER TABLE item DROP COLUMN weight",
        "CREATE TABLE copied AS SELECT * FROM item",
        "ALTER TABLE copied RENAME TO kept",
        "CREATE VIEW items AS SELECT name FROM item",
        "DROP VIEW items",
        "DROP TABLE item",
    )
    assert _look(path, "SELECT * FROM kept") == [(1, "a")]


@pytest.mark.parametrize(
    ("statement", "expect", "changed"),
    [
        ("UPDATE account SET cents = 1", 1, 3),
        ("UPDATE account SET cents = 1 WHERE name = 'nobody'", 1, 0),
        ("SELECT 1", 1, 0),
        ("DELETE FROM account RETURNING name", 1, 3),
    ],
)
def test_another_number_of_rows_than_expected(
    ready: Store, path: str, statement: str, expect: int, changed: int
) -> None:
    with pytest.raises(EffectFailed) as caught:
        _do(ready, "INSERT INTO account VALUES ('eve', 1)", Statement(statement, (), expect))
    assert (caught.value.expected, caught.value.changed) == (expect, changed)
    assert f"it changed {changed} rows and should change {expect}" in str(caught.value)
    assert _look(path, "SELECT sum(cents) FROM account") == [(100,)]


@pytest.mark.parametrize("statement", [_ENDLESS, f"INSERT INTO account SELECT 'x', ({_ENDLESS})"])
def test_a_statement_without_end_is_stopped(ready: Store, statement: str) -> None:
    ready.guard.limit = 0.02
    with pytest.raises(EffectFailed, match=r"not done after 0.02 s and was stopped"):
        _do(ready, statement)
    ready.guard.limit = 5.0
    _do(ready, "UPDATE account SET cents = 1")


def test_a_conflict_that_ends_the_transaction_ends_nobody_else_s(ready: Store, path: str) -> None:
    with pytest.raises(EffectFailed, match="UNIQUE"):
        _do(ready, "DELETE FROM account WHERE name = 'bob'", "INSERT OR ROLLBACK INTO account VALUES ('ann', 1)")
    ready.commit(rows.results(rows.epoch(ready, 1), [1]))
    assert _look(path, "SELECT count(*) FROM account") == [(2,)]


def test_parameters_by_name(ready: Store, path: str) -> None:
    _do(ready, Statement("UPDATE account SET cents = :cents WHERE name = :name", {"cents": 3, "name": "ann"}, 1))
    assert _look(path, "SELECT cents FROM account WHERE name = 'ann'") == [(3,)]
    with pytest.raises(EffectFailed, match=r"parameter :name, and no value"):
        _do(ready, Statement("DELETE FROM account WHERE name = :name", {"other": 1}))


_KILLED = """
import os, signal, sys
from dq.store.guard import Statement
from dq.store.store import Store
from tests.store import rows

store = Store.open(sys.argv[1])
store.boot("boot-1")
token = rows.epoch(store, 1)
store.commit(rows.claim(token, [1]))
def decide():
    if sys.argv[2] == "statements":
        os.kill(os.getpid(), signal.SIGKILL)
    return rows.results(token, [1])
store.commit_effects([Statement("DELETE FROM account", ())], decide)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("after", ["statements", "commit"])
def test_killed_between_the_statements_and_the_commit_neither_is_there(ready: Store, path: str, after: str) -> None:
    ready.close(clean=False)
    command = [sys.executable, "-c", _KILLED, path, after]
    done = subprocess.run(command, cwd=Path(tracing.ROOT), check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    both = (_look(path, "SELECT count(*) FROM account"), _look(path, "SELECT count(*) FROM dq_result"))
    assert both == (([(2,)], [(0,)]) if after == "statements" else ([(0,)], [(1,)]))
