"""Users' statements, on the writer's own connection: held to users' own tables, to one statement, and to a time.

What would reach dq's tables or the transaction around it is denied while SQLite compiles it, so a trigger or a view of
a user's that leads there is denied as well. What can't be known by then (a table's new name) is looked at afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apsw

from dq.errors import EffectFailed
from dq.store.sql import SQL

LIMIT = 5.0  # seconds for all statements of one attempt: meanwhile nothing else is written
VALUE_MAX = 64 << 20  # bytes of one value, so that no expression fills the supervisor's memory
_PULSE = 10_000  # instructions of SQLite's between two looks at the clock
_SHOWN = 200  # characters of a statement in a message

Params = Sequence[Any] | Mapping[str, Any]


class NotOne(Exception):
    """A text that holds no statement, or several."""


# What is wrong with the file or the disk,
DISK = (
    apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.CantOpenError, apsw.BusyError,
    apsw.ProtocolError, apsw.ReadOnlyError,
)  # fmt: skip
# and what with the statement or its parameters.
REFUSALS = (apsw.Error, NotOne, KeyError, ValueError, OverflowError, TypeError, MemoryError)
_PLAIN = {apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE, apsw.SQLITE_FUNCTION}
_WRITES = {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}
_CHANGES = {
    apsw.SQLITE_CREATE_TABLE, apsw.SQLITE_CREATE_INDEX, apsw.SQLITE_CREATE_VIEW, apsw.SQLITE_CREATE_TRIGGER,
    apsw.SQLITE_DROP_TABLE, apsw.SQLITE_DROP_INDEX, apsw.SQLITE_DROP_VIEW, apsw.SQLITE_DROP_TRIGGER,
    apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_REINDEX,
}  # fmt: skip
_REFUSED = {
    apsw.SQLITE_TRANSACTION: "a transaction is dq's to begin and to end",
    apsw.SQLITE_SAVEPOINT: "a transaction is dq's to begin and to end",
    apsw.SQLITE_PRAGMA: "PRAGMA changes how dq itself works on the file",
    apsw.SQLITE_ATTACH: "no other file can be attached",
    apsw.SQLITE_DETACH: "no other file can be attached",
    apsw.SQLITE_CREATE_VTABLE: "virtual tables run code of their own",
    apsw.SQLITE_DROP_VTABLE: "virtual tables run code of their own",
}
# SQLite itself writes here on behalf of statements that are allowed, and refuses those that name them.
_CATALOGUE = {"sqlite_master", "sqlite_temp_master", "sqlite_sequence"}
_STATISTICS = {"sqlite_stat1", "sqlite_stat4"}
# Who may read dq's tables: the views that are documented. ("claimed" is a part of one of them.)
_VIEWS = {"dq_runs", "dq_steps", "dq_attempts", "claimed"}


class Statement(NamedTuple):
    """A user's statement. `expect` is the number of rows that it must change, None for any."""

    sql: str
    params: Params
    expect: int | None = None


def rows(db: apsw.Connection, sql: str, params: Params) -> Iterator[tuple[Any, ...]]:
    """Runs one statement. Raises NotOne for none or several; apsw.Error and what apsw raises for bad parameters."""
    seen = 0

    def count(cursor: apsw.Cursor, _sql: str, _params: object) -> bool:
        nonlocal seen
        seen += cursor.has_vdbe  # a comment runs nothing
        return seen <= 1

    cursor = db.cursor()
    cursor.exec_trace = count
    try:
        # Never from the cache: it may hold the same text as a statement of dq's own, compiled without a guard.
        yield from cursor.execute(sql, params, can_cache=False)
    except apsw.ExecTraceAbort:
        raise NotOne("it holds several statements; use one call for each") from None
    finally:
        cursor.close(True)
    if not seen:
        raise NotOne("it holds no statement")


def shorten(sql: str) -> str:
    """A statement as it is shown in messages: one line."""
    text = " ".join(sql.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def reason(error: BaseException) -> str:
    """What an error says, in words that name neither Python nor apsw."""
    if isinstance(error, KeyError):
        return f"it has a parameter :{error.args[0]}, and no value is given for it"
    return " ".join(str(error).partition("  Current offset")[0].split()).rstrip(".") or type(error).__name__


class Guard:
    """Runs users' statements inside of a transaction that somebody else has begun and ends.

    Attributes:
        limit: Seconds that the statements of one attempt may take.
        changed: Rows that the last of them has changed.
    """

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self.limit = LIMIT
        self.changed = 0
        self._on = False
        self._why = ""  # of the first denial
        self._altered = False
        self._ours: list[Any] | None = None  # dq's part of the schema

    def run(self, statements: Sequence[Statement]) -> None:
        """Runs them in order.

        Raises:
            EffectFailed: One can't be done. What is done already is to be rolled back.
            apsw.Error: The disk failed.
        """
        if self._ours is None:
            # It stays for good: to set it each time would have all of dq's own statements compiled again.
            self._ours = self._schema()
            self._db.authorizer = self._judge
        until = time.monotonic() + self.limit
        limited = self._db.limit(apsw.SQLITE_LIMIT_LENGTH, VALUE_MAX)
        self._db.set_progress_handler(lambda: time.monotonic() > until, _PULSE, id="effects")
        try:
            for number, statement in enumerate(statements, 1):
                place = f"statement {number} of {len(statements)}, " if len(statements) > 1 else ""
                self._one(statement, f"{place}{shorten(statement.sql)!r}")
        finally:
            self._on = False
            self._db.set_progress_handler(None, id="effects")
            self._db.limit(apsw.SQLITE_LIMIT_LENGTH, limited)

    def _one(self, statement: Statement, told: str) -> None:
        sql, params, expect = statement
        before = self._db.total_changes()
        self._on, self._altered, self._why = True, False, ""
        try:
            for _ in rows(self._db, sql, params):
                pass
        except DISK:
            raise
        except apsw.InterruptError as error:
            raise _failed(told, f"it was not done after {self.limit:g} s and was stopped", sql) from error
        except REFUSALS as error:
            raise _failed(told, self._why or reason(error), sql) from error
        finally:
            self._on = False
        if self._altered and self._schema() != self._ours:
            raise _failed(told, "names that begin with dq_ are dq's own", sql)
        # `changes` still tells of an earlier statement after one that changes nothing.
        self.changed = self._db.changes() if self._db.total_changes() != before else 0
        if expect is not None and self.changed != expect:
            why = f"it changed {self.changed} rows and should change {expect}"
            raise _failed(told, why, sql, expect, self.changed)

    def _schema(self) -> list[Any]:
        return self._db.execute(SQL["own_schema"]).fetchall()

    def _judge(self, action: int, first: str | None, second: str | None, _db: str | None, inner: str | None) -> int:
        if not self._on:
            return apsw.SQLITE_OK
        why = self._objection(action, first or "", second or "", inner or "")
        if not why:
            return apsw.SQLITE_OK
        self._why = self._why or why
        return apsw.SQLITE_DENY

    def _objection(self, action: int, first: str, second: str, inner: str) -> str:
        """Why SQLite must not do this, "" where it may. `inner` is the view or trigger that leads to it."""
        name = first.lower()
        if action == apsw.SQLITE_READ:
            # Without a column it is a mere count of rows.
            free = not is_own(name) or name in _VIEWS or inner.lower() in _VIEWS or not second
            return "" if free else f"{first} is dq's own; read the views dq_runs, dq_steps and dq_attempts"
        if action in _PLAIN:
            return "no extension can be loaded" if second.lower() == "load_extension" else ""
        if action in _WRITES:
            if is_own(name):
                return f"{first} is dq's own, and only dq writes to it" + (
                    f" (the trigger {inner} would)" if inner else ""
                )
            allowed = not name.startswith("sqlite_") or name in _CATALOGUE
            allowed = allowed or (name in _STATISTICS and action == apsw.SQLITE_DELETE)
            return "" if allowed else f"{first} is SQLite's own"
        if action in _CHANGES:
            self._altered = True
            own = next((given for given in (first, second) if is_own(given.lower())), "")
            return f"{own}: names that begin with dq_ are dq's own" if own else ""
        return _REFUSED.get(
            action, "it is nothing that a statement of a step may do (temporary tables, ANALYZE, VACUUM)"
        )


def is_own(name: str) -> bool:
    """Whether a name in small letters is one of dq's."""
    return name.startswith("dq_")


def _failed(told: str, why: str, sql: str, expected: int | None = None, changed: int | None = None) -> EffectFailed:
    return EffectFailed(f"{told}: {why}. Nothing is written.", shorten(sql), expected, changed)
