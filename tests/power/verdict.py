"""Judges a file: is all there that somebody was told of, nothing that nobody wrote, and does it make sense?"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apsw

from dq.store.group import Group

Key = tuple[str, int]  # table, id
Rows = dict[Key, Any]


@dataclass
class Promise:
    """What was acknowledged by some moment.

    Attributes:
        rows: Rows that must be there, with what of them never changes.
        settled: Whether all that was committed before is acknowledged.
        next_id: No id below it may be given out again.
        epoch: No later supervisor may have this number or a lower one.
        salt: What the file calls itself.
    """

    rows: Rows = field(default_factory=dict)
    settled: bool = False
    next_id: int = 1
    epoch: int = 0
    salt: str = ""

    def copy(self) -> Promise:
        return Promise(dict(self.rows), self.settled, self.next_id, self.epoch, self.salt)


def rows_of(group: Group) -> Rows:
    """The rows that a group adds for good."""
    rows: Rows = {("dq_step", row[0]): row[2] for row in group.steps}
    rows |= {("dq_step", row[0]): row[6] for row in group.flow_steps}
    rows |= {("dq_result", row[0]): (row[2], row[8]) for row in group.results}
    rows |= {("dq_run", run.id): run.name for run in group.runs}
    rows |= {("end", change.id): (change.state, change.payload) for change in group.run_changes if change.ended_at}
    rows |= {("dq_signal", row.key): row.payload for row in group.signals}
    rows |= {("dq_letter", row.id): row.state for row in group.letters}
    return rows


_READ = {
    "dq_step": "SELECT id, args FROM dq_step",
    "dq_result": "SELECT step, state, payload FROM dq_result",
    "dq_run": "SELECT id, name FROM dq_run",
    "end": "SELECT id, state, payload FROM dq_run WHERE ended_at IS NOT NULL",
    "dq_signal": "SELECT key, payload FROM dq_signal",
    "dq_letter": "SELECT id, state FROM dq_letter",
    "effect": "SELECT id, value FROM effect",
}


def read(db: apsw.Connection) -> Rows:
    """The same rows, of a file."""
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    rows: Rows = {}
    for table, statement in _READ.items():
        if table in tables or table == "end":
            found: list[Any] = db.execute(statement).fetchall()
            rows |= {(table, row[0]): row[1] if len(row) == 2 else tuple(row[1:]) for row in found}
    return rows


def held_by(path: Path) -> Rows:
    """The rows of a file that nobody has open, of an earlier version too."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    db = apsw.Connection(f"file:{path}?immutable=1", flags=flags)
    try:
        return read(db)
    finally:
        db.close()


def state(db: apsw.Connection) -> str:
    """All that a file holds, in short. What a new file draws by lot is left out."""
    hashed = blake2b(digest_size=16)
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name")
    for (table,) in tables.fetchall():
        if table == "dq_engine":
            found: list[Any] = db.execute("SELECT boot_epoch, boot_id, clean, next_id FROM dq_engine").fetchall()
        else:
            found = sorted(map(repr, db.execute(f'SELECT * FROM "{table}"')))
        hashed.update(repr((table, found)).encode())
    return hashed.hexdigest()


def judge(db: apsw.Connection, promise: Promise, asked: Rows, gone: set[Key] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """What is wrong with a file. `asked`: rows that somebody wrote; `gone`: those that were, or may be, deleted since."""
    found = [f"integrity: {line}" for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
    rows = read(db)
    for key, value in promise.rows.items():
        if key not in gone and rows.get(key) != value:
            found.append(f"lost: {key} is {rows.get(key)!r} and was told as {value!r}")
    for key, value in rows.items():
        if key not in asked:
            found.append(f"nobody wrote {key}: {value!r}")
        elif asked[key] != value:
            found.append(f"{key} was written as {asked[key]!r} and is {value!r}")
    epoch, next_id, salt = db.execute("SELECT boot_epoch, next_id, salt FROM dq_engine").get
    if epoch < promise.epoch:
        found.append(f"the boot epoch went back from {promise.epoch} to {epoch}")
    if next_id < promise.next_id:
        found.append(f"ids from {next_id} on would be given out again; they were until {promise.next_id}")
    if promise.salt and salt != promise.salt:
        found.append("the file is another one")
    return found + _senseless(db, epoch, next_id)


# Each finds rows that contradict one another.
_RULES = {
    "a result of a step that is not there": """
        SELECT step FROM dq_result WHERE step NOT IN (SELECT id FROM dq_step) AND step NOT IN (SELECT id FROM dq_run)""",
    "a step alone that nobody would ever claim": """
        SELECT id FROM dq_step AS step WHERE run IS NULL AND id NOT IN (SELECT step FROM dq_result)
        AND NOT EXISTS (SELECT 1 FROM dq_batch WHERE step.id BETWEEN first AND last)""",
    "a step of a run that is not there": """
        SELECT id FROM dq_step WHERE run IS NOT NULL AND run NOT IN (SELECT id FROM dq_run)
        AND id NOT IN (SELECT step FROM dq_result)""",
    "an open step of a run that has ended": """
        SELECT step.id FROM dq_step AS step JOIN dq_run AS run ON run.id = step.run
        WHERE run.ended_at IS NOT NULL AND step.id NOT IN (SELECT step FROM dq_result)""",
    "one number of delivery for two results": """
        SELECT min(result.step) FROM dq_result AS result JOIN dq_step AS step ON step.id = result.step
        WHERE step.run IS NOT NULL GROUP BY step.run, result.seq HAVING count(*) > 1""",
    "a signal that two waits have taken, or one of nobody": """
        SELECT id FROM dq_signal WHERE step IS NOT NULL AND step NOT IN (SELECT id FROM dq_step)""",
    "a batch without an open step": """
        SELECT first FROM dq_batch WHERE NOT EXISTS (SELECT 1 FROM dq_step WHERE id BETWEEN first AND last
        AND id NOT IN (SELECT step FROM dq_result))""",
}


def _senseless(db: apsw.Connection, epoch: int, next_id: int) -> list[str]:
    found = [f"{what}: {row[0]}" for what, statement in _RULES.items() for row in db.execute(statement)]
    high = db.execute("""SELECT max(coalesce((SELECT max(id) FROM dq_step), 0), coalesce((SELECT max(id) FROM dq_run), 0),
        coalesce((SELECT max(step) FROM dq_result), 0))""").get
    if high >= next_id:
        found.append(f"the id {high} is in use and would be given out again: the next one is {next_id}")
    latest = db.execute("""SELECT max(coalesce((SELECT max(epoch) FROM dq_claim), 0),
        coalesce((SELECT max(epoch) FROM dq_result), 0), coalesce((SELECT max(epoch) FROM dq_attempt), 0))""").get
    if latest >> 40 > epoch:
        found.append(f"a claim of the supervisor {latest >> 40}, and the file knows {epoch} only")
    held: set[int] = set()
    done = {row[0] for row in db.execute("SELECT step FROM dq_result")}
    steps = {row[0] for row in db.execute("SELECT id FROM dq_step")}
    for (text,) in db.execute("SELECT steps FROM dq_claim"):
        ids = {step for step, _ in json.loads(text)}
        found += [f"two claims hold the step {step}" for step in (ids & held) - done]
        found += [f"a claim holds the step {step}, which is not there" for step in ids - steps]
        held |= ids
    return found
