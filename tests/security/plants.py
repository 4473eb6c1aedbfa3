"""Payloads that leave a marker where somebody unpickles them, planted in every place of a file that holds a pickle."""

from __future__ import annotations

import os
import pickle
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any

import msgspec

from dq.executor.failures import Failure
from dq.executor.options import Options, pack
from dq.model.payload import FAILURE, PICKLE, seal

# Every column of bytes that somebody unpickles somewhere; the rest of the bytes are hashes.
PLACES = {
    ("dq_function", "code"), ("dq_function", "options"), ("dq_run", "args"), ("dq_run", "payload"), ("dq_step", "args"),
    ("dq_result", "payload"), ("dq_signal", "payload"), ("dq_progress", "cursor"), ("dq_schedule", "args"),
}  # fmt: skip
HASHES = {"digest", "fingerprint", "salt", "key", "limits"}


class Mine:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self._marker,)


def value(marker: Path) -> bytes:
    return seal(PICKLE, pickle.dumps(Mine(marker), 5))


def failure(marker: Path) -> bytes:
    return seal(FAILURE, msgspec.msgpack.encode(Failure("ValueError", "no", "", pickle.dumps(Mine(marker), 5))))


def plant(db: Path, marker: Path) -> None:
    """Replaces all that is pickled in a file that nobody works on."""
    mine, fails = value(marker), failure(marker)
    options = pack(Options(retry=pickle.dumps(Mine(marker), 5)))
    with closing(connect(db)) as file:
        file.execute("UPDATE dq_function SET options = ? WHERE name NOT LIKE 'dq:%'", (options,))
        file.execute("UPDATE dq_function SET code = ? WHERE code IS NOT NULL", (pickle.dumps(Mine(marker), 5),))
        for table, column in (
            ("dq_run", "args"),
            ("dq_step", "args"),
            ("dq_signal", "payload"),
            ("dq_schedule", "args"),
        ):
            file.execute(f"UPDATE {table} SET {column} = ?", (mine,))
        file.execute(
            "UPDATE dq_run SET payload = CASE state WHEN 'completed' THEN ? ELSE ? END WHERE payload IS NOT NULL",
            (mine, fails),
        )
        file.execute("UPDATE dq_result SET payload = CASE state WHEN 'completed' THEN ? ELSE ? END", (mine, fails))
        file.execute("INSERT OR REPLACE INTO dq_progress SELECT id, ? FROM dq_step", (mine,))
        file.commit()


def columns(db: Path) -> set[tuple[str, str]]:
    """The columns of bytes of dq's own tables."""
    with closing(connect(db)) as file:
        tables = [row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            (table, row[1])
            for table in tables
            for row in file.execute(f"PRAGMA table_info({table})")
            if row[2] == "BLOB"
        }
