"""A small database that is full of all kinds of rows, and what is known of it."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

from dq.executor import failures
from dq.executor.codec import Codec
from dq.model.payload import PICKLE, seal
from dq.store.group import (
    AttemptRow,
    BeginRow,
    FunctionRow,
    Group,
    LetterRow,
    QueueRow,
    ScheduleRow,
    SignalRow,
    TermRow,
)
from dq.store.store import Store
from tests.store import rows
from tests.store.rows import NOW

ALONE = range(1, 41)  # steps submitted alone: the first 30 have ended
RUNS = {100: "movie-1", 101: "movie-2", 102: "movie-3", 103: "movie-4", 104: "movie-5"}
STEPS = {run: range(200 + 20 * n, 212 + 20 * n) for n, run in enumerate(RUNS)}  # of each run: the first 8 have ended
WAIT, SLEEP = 400, 401
SIGNAL, SCHEDULE = 500, "nightly"
ASIDE = (3, 9, 27)  # steps whose results lie in side files
LARGE = 300 << 10  # bytes of such a result
FILES = ("f.db", "f.db-wal", "f.db-shm")


def value(kind: str, id: int) -> object:
    """What was given for a row: some of it takes a page more."""
    return kind, id, "word " * (id % 7), bytes(LARGE) if kind == "aside" else b"\1" * (6000 if id % 9 == 5 else 20)


def payload(kind: str, id: int) -> bytes:
    """The same, sealed."""
    return seal(PICKLE, pickle.dumps(value(kind, id), 5))


def failure(id: int) -> bytes:
    return failures.pack(ValueError(f"run {id} has failed"))


def result(id: int) -> bytes:
    return failure(id) if id % 10 == 4 else payload("result", id)


def _functions() -> Group:
    group = rows.functions()
    group.functions += [
        FunctionRow(3, 1, "dq:wait_signal", "step", b"v" * 16, b"", "dq", 1, NOW),
        FunctionRow(4, 1, "dq:sleep", "step", b"z" * 16, b"", "dq", 1, NOW),
    ]
    return group


def _alone(store: Store, codec: Codec) -> None:
    store.commit(
        Group(
            lease_to=ALONE.stop,
            batches=[(ALONE.start, ALONE.stop - 1)],
            steps=[(id, 1, payload("args", id), NOW) for id in ALONE],
        )
    )
    token = rows.epoch(store, 1)
    store.commit(rows.claim(token, ALONE[:30]))
    told = {id: codec.dumps(value("aside", id), f"s{id}-e1") if id in ASIDE else result(id) for id in ALONE[:30]}
    states = {id: "failed" if id % 10 == 4 else "completed" for id in told}
    store.commit(
        Group(
            results=[(id, None, states[id], 1, token, 77, NOW + 5, NOW + 7, told[id]) for id in told],
            closed_claims=[(token,)],
            letters=[LetterRow(4, "discarded", None, NOW + 9)],
        )
    )
    store.commit(rows.claim(rows.epoch(store, 2), ALONE[30:34]))
    store.commit(Group(progress=[(31, b"cursor")], terms=[TermRow(36, NOW << 1, 5, "key", "word")]))


def _flows(store: Store) -> None:
    for run, name in RUNS.items():
        group = rows.run(run, name)
        group.runs = [group.runs[0]._replace(args=payload("args", run))]
        store.commit(group)
        ids = STEPS[run]
        made = [(id, run, 1, "0", n, b"g" * 16, payload("args", id), NOW) for n, id in enumerate(ids)]
        store.commit(Group(lease_to=ids.stop, flow_steps=made))
        token = rows.epoch(store, run)
        store.commit(rows.claim(token, ids[:8]))
        ended: list[tuple[int, int | None, str, int, int, int, int, int, bytes]] = [
            (id, n, "completed", 1, token, 77, NOW + 5, NOW + 7, payload("result", id))
            for n, id in enumerate(ids[:8], 1)
        ]
        store.commit(Group(results=ended, closed_claims=[(token,)]))
    told = {100: ("completed", payload("result", 100)), 101: ("failed", failure(101)), 102: ("blocked", None)}
    for run, (state, sealed) in told.items():
        group = rows.run_ends(run, state)
        group.run_changes = [group.run_changes[0]._replace(payload=sealed)]
        store.commit(group)


def _others(store: Store) -> None:
    waits = [(WAIT, 103, 3, "0", 0, b"w" * 16, payload("args", WAIT), NOW)]
    waits += [(SLEEP, 103, 4, "0", 0, b"w" * 16, payload("args", SLEEP), NOW)]
    due = [TermRow(WAIT, None, topic="go"), TermRow(SLEEP, NOW << 1)]
    store.commit(Group(lease_to=SLEEP + 1, flow_steps=waits, terms=due))
    store.commit(
        Group(
            lease_to=SIGNAL + 9,
            signals=[SignalRow(n, SIGNAL + n, 104, "go", payload("signal", n), NOW + n) for n in range(1, 5)],
            schedules=[
                ScheduleRow(
                    SCHEDULE, 2, payload("args", 600), b"f" * 16, "every 60 s", "UTC", "one", "skip", 0, NOW << 1, None,
                    None, None, 0, NOW,
                )
            ],
            queues=[QueueRow("mail", 2, 0, 10, 60_000_000, 0, 1)],
            begins=[BeginRow("mail", "key", 31, 1, NOW)],
            attempts=[AttemptRow(35, 1, rows.epoch(store, 9), "crashed", 77, 1, "killed by signal 9", NOW + 6)],
        )
    )  # fmt: skip


def make(folder: Path) -> None:
    """Two copies of the database: `closed` is one file, `killed` has most of its rows in the log."""
    work = folder / "work"
    work.mkdir(parents=True)
    codec = Codec(str(work / "f.db.blobs"))
    store = Store.open(work / "f.db")
    store.boot("boot-1")
    store.commit(_functions())
    _alone(store, codec)
    store.checkpoint()
    _flows(store)
    _others(store)
    shutil.copytree(work, folder / "killed")
    store.close(clean=True)
    shutil.copytree(work, folder / "closed")
    shutil.rmtree(work)


def truth(folder: Path) -> dict[tuple[str, int], set[bytes]]:
    """The payloads that may be read, by the column and the number of the row; those in side files as they were written."""
    from dq.store.reader import Reader

    found: dict[tuple[str, int], set[bytes]] = {}
    with Reader.open(folder / "closed" / "f.db") as reader:
        for table, key, column in (
            ("step", "id", "args"), ("result", "step", "payload"), ("run", "id", "args"), ("run", "id", "payload"),
            ("signal", "id", "payload"), ("schedule", "next_at", "args"),
        ):  # fmt: skip
            for id, told in reader.query(f"SELECT {key}, {column} FROM dq_{table} WHERE {column} IS NOT NULL"):
                found.setdefault((f"{table}.{column}", id), set()).add(told)
    assert len(found) > 150
    return found
