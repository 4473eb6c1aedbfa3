"""One transaction: all that is written inside the block, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from dq.store.sql import SQL


@contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """Commits at the end of the block, rolls back when it raises. Raises apsw.Error."""
    db.execute(SQL["begin"])
    try:
        yield
        db.execute(SQL["commit"])
    except BaseException:
        if db.in_transaction:  # after some errors SQLite has rolled back by itself
            db.execute(SQL["rollback"])
        raise
