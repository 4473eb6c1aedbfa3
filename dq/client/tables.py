"""Users' own tables in the database file, from outside of steps: statements that change them, and looks at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from dq.client import reading
from dq.executor import effects
from dq.executor.frames import Done, Execute

if TYPE_CHECKING:
    from dq.client.connection import Connection
    from dq.flow.effects import SqlParams


class Tables:
    """The part of an engine that speaks of users' tables."""

    path: str
    _line: Connection

    def execute(self, sql: str, params: SqlParams = ()) -> int:
        """Runs one statement in the database file, once, and returns how many rows it changed, when that is on disk.

        For tables of your own, which steps then write with `dq.write`. The same rules hold for both.

        Args:
            sql: One statement, such as CREATE TABLE IF NOT EXISTS, INSERT, UPDATE, DELETE. Names that begin with `dq_`
                are dq's own. Transactions, PRAGMA, ATTACH and virtual tables are refused.
            params: A tuple for `?`, or a dict for `:name`; of None, int, float, str, bytes.

        Raises:
            EffectFailed: It can't be done; the message says why. Nothing is written.
            TypeError: A parameter is of a type that SQLite does not know; the message names it.
            ValueError: The statement is empty, or a number has more than 64 bits.

        Example:
            engine.execute("CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, cents INTEGER)")
            engine.execute("INSERT OR IGNORE INTO account VALUES (?, ?)", ("ann", 100_00))
        """
        given = effects.check("engine.execute", sql, params)
        line = self._line
        number = line.next_id()
        answer = cast(Done, line.ask(lambda ticket: Execute(ticket, number, sql, given)))
        return cast(int, line.codec.loads(bytes.fromhex(answer.text)))

    def read(self, sql: str, params: SqlParams = ()) -> list[tuple[Any, ...]]:
        """Runs one statement that only reads, and returns all its rows: a consistent snapshot of what is committed.

        Args:
            sql: One statement, such as SELECT; of your own tables, or dq's views `dq_runs`, `dq_steps`, `dq_attempts`.
            params: As for `execute`.

        Raises:
            ReadFailed: It can't be answered; the message shows it and says why.
            TypeError, ValueError: As for `execute`.

        Example:
            for name, cents in engine.read("SELECT name, cents FROM account ORDER BY name"):
                print(name, cents)
        """
        return reading.fetch(sql, effects.check("engine.read", sql, params), self.path)
