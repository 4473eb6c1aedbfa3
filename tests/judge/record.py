"""What a database file holds, read with the standard library alone."""

from __future__ import annotations

import hashlib
import io
import pickle
import sqlite3
import zlib
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

FINAL = ("completed", "failed", "cancelled")


class Run(NamedTuple):
    id: int
    state: str
    payload: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.payload).hexdigest()


class Result(NamedTuple):
    state: str
    epoch: int
    ended_at: int  # microseconds UTC
    payload: bytes


class Step(NamedTuple):
    run: int | None
    name: str
    result: Result | None


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is more than a number, a text or a container")


def value(payload: bytes) -> Any:
    """What is in an inline payload that holds plain values. Raises ValueError, UnpicklingError."""
    tag, crc, body = payload[:1], int.from_bytes(payload[1:5], "little"), payload[5:]
    if tag != b"p" or zlib.crc32(body) != crc:
        raise ValueError(f"a payload with the tag {tag!r} that is no plain value, or is damaged")
    return _Plain(io.BytesIO(body)).load()


class Record:
    """The rows that matter."""

    def __init__(self, database: str | Path) -> None:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as file:
            self.whole = file.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
            self.runs = {
                name: Run(id, state, payload or b"")
                for name, id, state, payload in file.execute("SELECT name, id, state, payload FROM dq_run")
            }
            self.steps = {row[0]: _step(*row[1:]) for row in file.execute(_STEPS)}
            self.attempts = {(step, epoch): outcome for step, epoch, outcome in file.execute(_ATTEMPTS)}
            self.signals = set(file.execute(_SIGNALS))
            self.twice = file.execute(_TWICE).fetchall()
            self.claims = file.execute("SELECT count(*) FROM dq_claim").fetchone()[0]
            self.rows = Counter[str]()
            if file.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chaos_row'").fetchone():
                self.rows.update(place for (place,) in file.execute("SELECT place FROM chaos_row"))


_STEPS = """
    SELECT s.id, s.run, f.name, r.state, r.epoch, r.ended_at, r.payload
    FROM dq_step AS s JOIN dq_function AS f ON f.id = s.function LEFT JOIN dq_result AS r ON r.step = s.id
"""
_ATTEMPTS = "SELECT step, epoch, outcome FROM dq_attempt"
_SIGNALS = "SELECT r.name, s.name FROM dq_signal AS s JOIN dq_run AS r ON r.id = s.run"
_TWICE = """
    SELECT 'place', run, scope, function, occurrence FROM dq_step WHERE run IS NOT NULL
    GROUP BY run, scope, function, occurrence HAVING count(*) > 1
    UNION ALL
    SELECT 'number', s.run, '', r.seq, 0 FROM dq_step AS s JOIN dq_result AS r ON r.step = s.id WHERE s.run IS NOT NULL
    GROUP BY s.run, r.seq HAVING count(*) > 1
"""


def _step(
    run: int | None, name: str, state: str | None, epoch: int | None, ended_at: int | None, payload: bytes | None
) -> Step:
    result = Result(state, epoch or 0, ended_at or 0, payload or b"") if state is not None else None
    return Step(run, name, result)
