"""Steps with effects for tests that kill: accounts, and a ledger with one row for each effect."""

from __future__ import annotations

import os
import time

import tenacity

import dq
from tests.process.flows import hold, note

TABLES = (
    "CREATE TABLE account (name TEXT PRIMARY KEY, cents INTEGER CHECK (cents >= 0)) STRICT",
    "CREATE TABLE ledger (number INTEGER, step INTEGER)",
)


@dq.step(max_crashes=20)
def transfer(number: int, source: str, target: str, cents: int) -> int:
    dq.write("UPDATE account SET cents = cents - ? WHERE name = ?", (cents, source), expect=1)
    dq.write("UPDATE account SET cents = cents + ? WHERE name = ?", (cents, target), expect=1)
    dq.write("INSERT INTO ledger VALUES (?, ?)", (number, dq.current().step))
    time.sleep(0.002)  # so that a kill meets bodies that run
    return number


@dq.step(stop=tenacity.stop_after_attempt(2))
def twice(folder: str) -> None:
    note(folder, "begin", "twice", os.getpid())
    dq.write("INSERT INTO ledger VALUES (1, 1)")
    dq.write("UPDATE account SET cents = 0 WHERE name = 'nobody'", expect=1)


@dq.step
def follows(value: int) -> int:
    return value


@dq.step
def announces(folder: str, run: str) -> None:
    """Asks for everything, and then holds."""
    dq.write("INSERT INTO ledger VALUES (1, ?)", (dq.current().step,))
    dq.enqueue(follows, 7)
    dq.signal(run, "news", "it is done")
    note(folder, "begin", "announces", os.getpid())
    hold(folder, "announces")


@dq.workflow
def hears() -> str:
    return str(dq.wait_signal("news"))


@dq.workflow
def tells(folder: str, run: str) -> None:
    """Sends a signal, and then holds in its host."""
    dq.signal(run, "news", "once")
    note(folder, "begin", "tells", os.getpid())
    hold(folder, "tells")


@dq.step
def looks(name: str) -> list[int]:
    """What a body sees of what is there, and of what it has asked for itself."""
    seen: list[int] = []
    for _ in range(2):
        [(cents,)] = dq.read("SELECT cents FROM account WHERE name = ?", (name,))
        seen.append(cents)
        dq.write("UPDATE account SET cents = cents + 1 WHERE name = ?", (name,), expect=1)
    return seen


@dq.workflow
def remembers(folder: str) -> tuple[object, object]:
    """Reads, holds in its host, and reads again."""
    first = dq.read("SELECT name, cents FROM account WHERE name = :name", {"name": "ann"})
    note(folder, "begin", "remembers", os.getpid())
    hold(folder, "remembers")
    return first, dq.read("SELECT cents FROM account WHERE name = 'ann'")
