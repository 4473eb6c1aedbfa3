"""`dq.read`: a look at the file from where user code runs, with a connection that is gone when it returns."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dq.errors import DqError
from dq.executor import current, effects
from dq.flow import context
from dq.flow.decorators import step

if TYPE_CHECKING:
    from dq.flow.effects import SqlParams

Rows = list[tuple[Any, ...]]


def read(sql: str, params: SqlParams = (), *, db: str | os.PathLike[str] | None = None) -> Rows:
    """Runs one statement on the database file and returns all its rows: a consistent snapshot of what is committed.

    In the body of a step it sees what the steps before it have written, and not yet what this body has given to
    `dq.write`. In a workflow the read is a step of its own and its rows are recorded, so that a replay gets the same
    ones. Elsewhere say which file with `db`. The file is opened read-only, so nothing can be changed.

    Args:
        sql: One statement, such as SELECT. Your own tables, and dq's views `dq_runs`, `dq_steps` and `dq_attempts`.
        params: A tuple for `?`, or a dict for `:name`; of None, int, float, str, bytes.
        db: The database file; None for the one that this step or workflow belongs to.

    Example:
        [(cents,)] = dq.read("SELECT cents FROM account WHERE name = ?", ("ann",))

    Raises:
        ReadFailed: The statement can't be answered; the message shows it and says why.
        TypeError: A parameter is of a type that SQLite does not know; the message names it.
        StoreError: The file can't be used; the subclass and the message say why.
        DqError: No step and no workflow runs here, and `db` is not given.
    """
    given = effects.check("dq.read", sql, params)
    if context.running is not None:
        return read_rows(sql, given, None if db is None else os.fspath(db))
    return fetch(sql, given, db)


def fetch(sql: str, params: Any, db: str | os.PathLike[str] | None) -> Rows:
    """The rows of a statement, read here and now."""
    from dq.store.reader import Reader

    path = os.fspath(db) if db is not None else current.database()
    if not path:
        raise DqError(
            "dq.read(...) reads the file of the step or workflow that it is called in, and here runs none. Say which "
            'file: dq.read(sql, params, db="flows.db"), or use engine.read(sql, params)'
        )
    with Reader.open(path) as reader:
        return reader.query(sql, params)


@step
def read_rows(sql: str, params: Any, db: str | None) -> Rows:
    """What `dq.read` is on record as, where a workflow calls it."""
    return fetch(sql, params, db)
