"""What is taken out of the file goes whole, and nothing goes with it that somebody needs."""

from __future__ import annotations

import json
import re
import struct
from itertools import chain
from pathlib import Path
from sqlite3 import connect
from zlib import crc32

import pytest

from dq.errors import Fenced
from dq.executor import blobs
from dq.model.payload import FILE, INLINE_MAX, unseal
from dq.store import references
from dq.store.group import AttemptRow, Group, LetterRow, RunRow, SignalRow, TermRow
from dq.store.purges import RUN, SIGNAL, STEP, Age
from dq.store.sql import SQL, read
from dq.store.store import Store
from tests.store import rows

OLD = Age(rows.NOW + 100, keep_failed=False, now=rows.NOW + 100)
YOUNG = Age(rows.NOW, keep_failed=False, now=rows.NOW)
PAYLOADS = {"args", "payload", "cursor"}


def named(name: str) -> bytes:
    """A payload that names a side file."""
    body = struct.pack("B", 0x93) + bytes([0xA0 + len(name)]) + name.encode() + b"\x01\x02"
    return FILE + struct.pack("<I", crc32(body)) + body


def ended(store: Store, ids: range, state: str = "completed") -> None:
    """Steps submitted alone that have a result."""
    store.commit(rows.batch(ids[0], ids[-1]))
    token = rows.epoch(store, ids[0])
    store.commit(rows.claim(token, ids))
    store.commit(rows.results(token, ids, state))


def old_steps(store: Store, age: Age = OLD) -> list[int]:
    return list(chain(*store.old_steps(age)))


def old_runs(store: Store, age: Age = OLD) -> list[tuple[int, int]]:
    return list(chain(*store.old_runs(age)))


def tables(store: Store) -> dict[str, int]:
    """How many rows each table has, of those that belong to steps and runs."""
    store.sync()
    file = connect(f"file:{store._path}?mode=ro", uri=True)
    names = ("dq_run", "dq_step", "dq_result", "dq_attempt", "dq_term", "dq_signal", "dq_progress", "dq_letter")
    try:
        return {name: file.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    finally:
        file.close()


def test_what_ended_long_ago_is_found_and_nothing_else(store: Store) -> None:
    ended(store, range(1, 4))
    ended(store, range(10, 12), "failed")
    store.commit(rows.batch(20, 21))
    store.commit(rows.claim(rows.epoch(store, 999), [21]))
    assert old_steps(store) == [1, 2, 3, 10, 11]
    assert old_steps(store, OLD._replace(keep_failed=True)) == [1, 2, 3]
    assert old_steps(store, YOUNG) == []


def test_a_step_goes_with_all_that_belongs_to_it(store: Store) -> None:
    ended(store, range(1, 3))
    store.commit(
        Group(
            terms=[TermRow(1, None, 5), TermRow(2, None, 5)],
            attempts=[AttemptRow(1, 1, 7, "failed", 7, 0, "", rows.NOW)],
            progress=[(1, b"p0000")],
            letters=[LetterRow(1, "discarded", None, rows.NOW)],
        )
    )
    assert store.purge(STEP, [1], 1.0) == 1
    left = tables(store)
    assert {name for name, count in left.items() if count} == {"dq_step", "dq_result", "dq_term"}
    assert left["dq_step"] == left["dq_result"] == left["dq_term"] == 1


def test_the_result_that_others_may_share_stays_until_its_time(store: Store) -> None:
    ended(store, range(1, 3))
    store.commit(Group(terms=[TermRow(1, None, dedup="a", dedup_until=OLD.now + 1), TermRow(2, None, dedup="b")]))
    assert old_steps(store) == [2]
    assert old_steps(store, OLD._replace(now=OLD.now + 1)) == [1, 2]


def test_a_run_goes_first_and_its_steps_are_found_after_a_kill(store: Store) -> None:
    store.commit(rows.run(1, "a"))
    store.commit(rows.flow_steps(1, range(2, 6)))
    store.commit(rows.run_ends(1))
    store.commit(rows.run(9, "b"))
    store.commit(rows.flow_steps(9, [10]))
    store.commit(
        Group(signals=[SignalRow(1, 100, 1, "s", b"p0000", rows.NOW), SignalRow(2, 101, 9, "s", b"p", rows.NOW)])
    )
    assert old_runs(store) == [(1, 0)]
    assert old_steps(store) == []
    store.purge(RUN, [1], 1.0)
    store.close(clean=False)
    with_successor = Store.open(store._path)
    with_successor.boot("boot-1")
    assert old_steps(with_successor) == [2, 3, 4, 5]
    assert list(chain(*with_successor.stray_signals())) == [1]
    with_successor.purge(STEP, [2, 3, 4, 5], 1.0)
    with_successor.purge(SIGNAL, [1], 1.0)
    left = tables(with_successor)
    assert (left["dq_run"], left["dq_step"], left["dq_signal"]) == (1, 1, 1)
    with_successor.close(clean=False)


def test_an_unfinished_run_is_never_deleted(store: Store) -> None:
    store.commit(rows.run(1, "a"))
    store.purge(RUN, [1], 1.0)
    assert tables(store)["dq_run"] == 1


def test_what_is_known_of_a_child_run_s_host_outlives_the_parent_s_step(store: Store) -> None:
    store.commit(rows.run(1, "parent"))
    store.commit(rows.flow_steps(1, [2]))
    store.commit(Group(runs=[RunRow(2, "parent/2", 2, rows.ARGS, b"f" * 16, rows.NOW, parent=1)]))
    store.commit(Group(attempts=[AttemptRow(2, 1, 0, "crashed", 7, 1, "its host", rows.NOW)]))
    store.commit(rows.run_ends(1))
    store.purge(RUN, [1], 1.0)
    store.purge(STEP, [2], 1.0)
    assert store.attempts([2]) == {2: (1, 1)}
    store.commit(rows.run_ends(2))
    store.commit(rows.results(0, [2]))
    store.purge(RUN, [2], 1.0)
    assert not any(tables(store).values())


def test_a_portion_ends_when_its_time_is_up(store: Store) -> None:
    ended(store, range(1, 101))
    assert store.purge(STEP, range(1, 101), 0.0) == 1
    assert store.purge(STEP, range(2, 101), 10.0) == 99
    assert not any(tables(store).values())


def test_who_has_a_successor_deletes_nothing(store: Store) -> None:
    ended(store, range(1, 3))
    successor = Store.open(store._path)
    successor.boot("boot-1")
    with pytest.raises(Fenced):
        store.purge(STEP, [1, 2], 1.0)
    assert tables(successor)["dq_step"] == 2
    successor.close(clean=False)


def test_a_walk_takes_in_every_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "PAGE", 3)
    ended(store, range(1, 9))
    ended(store, range(70_000, 70_005))
    pages = list(store.old_steps(OLD))
    assert pages == [[1, 2, 3], [4, 5, 6], [7, 8, 70_000], [70_001, 70_002, 70_003], [70_004]]


def test_every_payload_of_the_schema_is_searched_for_side_files() -> None:
    """A column that is left out would have its files deleted under it."""
    for table, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", read("schema.sql"), re.DOTALL):
        for column in re.findall(r"^    (\w+) +BLOB", body, re.MULTILINE):
            if column in PAYLOADS:
                assert any(
                    f"SELECT {column} FROM {table} " in f"{statement} "
                    for name, statement in SQL.items()
                    if name in {"schedules_aside", *chain(*(each.names for each in references.TABLES))}
                ), f"{table}.{column}"


def test_names_are_found_wherever_they_are(store: Store) -> None:
    store.commit(Group(lease_to=50, runs=[RunRow(1, "a", 2, named("a1-x"), b"f" * 16, rows.NOW)]))
    store.commit(Group(flow_steps=[(2, 1, 1, "0", 0, b"g" * 16, named("a2-x"), rows.NOW)]))
    store.commit(Group(results=[(2, 1, "completed", 0, 0, 0, rows.NOW, rows.NOW, named("s2-e7-x"))]))
    store.commit(Group(signals=[SignalRow(1, 9, 1, "s", named("g9-x"), rows.NOW)], progress=[(2, named("p2-x"))]))
    store.commit(Group(flow_steps=[(3, 1, 1, "0", 1, b"g" * 16, b"f" + bytes(INLINE_MAX), rows.NOW)]))
    found = [blobs.reference(bytes(unseal(payload)[1])).name for payload in chain(*store.payloads_aside())]
    assert sorted(found) == ["a1-x", "a2-x", "g9-x", "p2-x", "s2-e7-x"]
    assert len(store.files_of(STEP, [1, 2, 3])) == 3
    assert len(store.files_of(RUN, [1])) == 1
    assert len(store.files_of(SIGNAL, [1])) == 1


def test_compacting_gives_space_back(path: str) -> None:
    store = Store.open(path)
    store.boot("boot-1")
    store.commit(rows.functions())
    group = Group(lease_to=101, batches=[(1, 100)], steps=[(id, 1, bytes(20_000), rows.NOW) for id in range(1, 101)])
    store.commit(group)
    store.commit(rows.results(0, range(1, 101)))
    store.checkpoint()
    before = Path(path).stat().st_size
    store.purge(STEP, range(1, 101), 10.0)
    store.compact()
    store.close(clean=True)
    assert Path(path).stat().st_size < before // 10
    again = Store.open(path)
    assert json.dumps(again.functions()[0][2]) == '"flow:render"'
    again.close(clean=False)
