"""The judge is judged: with a guard taken out of dq, or a row out of a file, it must find something."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from dq.crew.committer import Committer, _send
from dq.errors import StoreError
from dq.store import connection
from dq.store.group import Group
from dq.store.sql import SQL
from dq.store.store import Store
from dq.store.sync import Wal
from tests.power import crew
from tests.power.disk import SYNC, Disk, Fault
from tests.power.keeper import FixedClock
from tests.power.script import Script
from tests.power.sweep import Sweep, Tally
from tests.power.verdict import Promise, judge, read
from tests.store import rows

Patch = pytest.MonkeyPatch
_sync, _boot, _commit, _prepare = Wal.sync, Store.boot, Store.commit_effects, connection._prepare
_send_off, _sync_group = Committer._send_off, Committer._sync


def no_sync(patch: Patch) -> None:
    patch.setattr(Wal, "sync", lambda _wal: 0.0)


def sync_before_commit(patch: Patch) -> None:
    def commit(store: Store, statements: Any, decide: Callable[[], Group]) -> None:
        _sync(store._wal)
        _commit(store, statements, decide)

    patch.setattr(Store, "commit_effects", commit)
    patch.setattr(Store, "sync", lambda _store: 0.0)


def no_sync_at_the_start(patch: Patch) -> None:
    def boot(store: Store, boot_id: str) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Wal, "sync", lambda _wal: 0.0)
            return _boot(store, boot_id)

    patch.setattr(Store, "boot", boot)


def no_fence(patch: Patch) -> None:
    patch.setitem(SQL, "fence", "SELECT 1 WHERE ?1 IS NOT NULL")


def no_sync_of_checkpoints(patch: Patch) -> None:
    def prepare(opened: apsw.Connection, path: str, now: int) -> None:
        _prepare(opened, path, now)
        opened.pragma("synchronous", "off")

    patch.setattr(connection, "_prepare", prepare)


def a_group_in_two(patch: Patch) -> None:
    def commit(store: Store, statements: Any, decide: Callable[[], Group]) -> None:
        group = decide()
        batches, group.batches = group.batches, []
        _commit(store, statements, lambda: group)
        _commit(store, (), lambda: Group(batches=batches))

    patch.setattr(Store, "commit_effects", commit)


def a_failed_sync_is_tried_again(patch: Patch) -> None:
    def sync(store: Store) -> float:
        try:
            return _sync(store._wal)
        except StoreError:
            return _sync(store._wal)

    patch.setattr(Store, "sync", sync)


def what_is_read_is_taken_for_synced(patch: Patch) -> None:
    patch.setattr(Wal, "renew", lambda _wal, _size: None)


GUARDS = [no_sync, sync_before_commit, no_sync_at_the_start, no_fence, no_sync_of_checkpoints, a_group_in_two]
SYNC_GUARDS = [a_failed_sync_is_tried_again, what_is_read_is_taken_for_synced]


def swept(place: Path, seed: int, fault: Fault | None = None) -> Tally:
    folder = place / f"{seed}-{fault.at if fault else 0}"
    folder.mkdir()
    chance = random.Random(seed)
    with Disk(folder) as disk:
        disk.fault = fault
        script = Script(disk, chance)
        script.run(20)
    return Sweep(disk, script.promises, script.asked, script.gone, chance, place).run(0, 0.25, findings=1)


@pytest.mark.parametrize("mutate", GUARDS)
def test_without_a_guard_something_is_found(place: Path, monkeypatch: Patch, mutate: Callable[[Patch], None]) -> None:
    mutate(monkeypatch)
    assert any(swept(place, seed).findings for seed in range(12))


@pytest.mark.parametrize("mutate", SYNC_GUARDS)
def test_a_sync_that_has_failed(place: Path, monkeypatch: Patch, mutate: Callable[[Patch], None]) -> None:
    mutate(monkeypatch)
    assert any(swept(place, 0, Fault(SYNC, at)).findings for at in range(4, 30))


def told_before_the_sync(patch: Patch) -> None:
    def sync(committer: Committer) -> None:
        _send(committer._waiting)
        _sync_group(committer)

    patch.setattr(Committer, "_sync", sync)


def told_at_the_commit(patch: Patch) -> None:
    def send_off(committer: Committer) -> None:
        _send(committer.after_sync)
        _send_off(committer)

    patch.setattr(Committer, "_send_off", send_off)


def told_by_a_sync_that_began_before(patch: Patch) -> None:
    def send_off(committer: Committer) -> None:
        if committer._in_flight is not None:
            committer._in_flight += committer.after_sync
            committer.after_sync.clear()
        _send_off(committer)

    patch.setattr(Committer, "_send_off", send_off)


@pytest.mark.parametrize("mutate", [told_before_the_sync, told_at_the_commit, told_by_a_sync_that_began_before])
def test_who_is_told_too_early(place: Path, monkeypatch: Patch, mutate: Callable[[Patch], None]) -> None:
    mutate(monkeypatch)
    for seed in range(8):
        folder = place / str(seed)
        folder.mkdir()
        with Disk(folder) as disk:
            shift = crew.record(folder, disk, random.Random(seed), 40, slow=mutate is told_by_a_sync_that_began_before)
        if Sweep(disk, shift.promises, shift.asked, set(), shift.chance, place).run(0, 0.25, findings=1).findings:
            return
    pytest.fail("nothing was found")


DAMAGE = {
    "DELETE FROM dq_step WHERE id = 1": r"lost: \('dq_step', 1\)",
    "DELETE FROM dq_result WHERE step = 2": r"lost: \('dq_result', 2\)",
    "UPDATE dq_result SET payload = x'00' WHERE step = 2": "was told as",
    "UPDATE dq_step SET args = x'00' WHERE id = 9": r"\('dq_step', 9\) was written as",
    "INSERT INTO dq_result VALUES (3, 1, 'completed', 1, 1, 1, 1, 1, x'00')": "nobody wrote",
    "UPDATE dq_engine SET boot_epoch = 0": "the boot epoch went back",
    "UPDATE dq_engine SET next_id = 2": "would be given out again",
    "UPDATE dq_engine SET salt = 'x'": "the file is another one",
    "UPDATE dq_result SET step = 77 WHERE step = 1": "a result of a step that is not there: 77",
    "DELETE FROM dq_batch": "a step alone that nobody would ever claim: 3",
    "UPDATE dq_run SET id = 88": "a step of a run that is not there: 22",
    "UPDATE dq_run SET state = 'completed', ended_at = 1": "an open step of a run that has ended: 22",
    "UPDATE dq_step SET run = 20, occurrence = id, scope = '0' WHERE id IN (1, 2)": "one number of delivery for two",
    "INSERT INTO dq_batch VALUES (2, 2)": "a batch without an open step: 2",
    "INSERT INTO dq_claim SELECT epoch + 1, slot, pid, boot_epoch, steps, 0 FROM dq_claim": "two claims hold the step 3",
    """INSERT INTO dq_claim VALUES ((1 << 40) + 9, 0, 1, 1, '[[99, 1]]', 0)""": "a claim holds the step 99",
    "INSERT INTO dq_claim VALUES (9 << 40, 0, 1, 9, '[]', 0)": "a claim of the supervisor 9",
    "INSERT INTO dq_signal VALUES (5, 5, 20, 'go', x'00', 0, 99)": "a signal that two waits have taken, or one of nobody",
}


@pytest.mark.parametrize(("damage", "finding"), DAMAGE.items(), ids=range(len(DAMAGE)))
def test_each_contradiction_is_found(place: Path, damage: str, finding: str) -> None:
    store = Store.open(place / "live" / "f.db", clock=FixedClock())
    try:
        store.boot("boot-1")
        store.commit(rows.functions())
        for first, last in ((1, 4), (9, 9)):
            store.commit(rows.batch(first, last))
        store.commit(rows.claim(rows.epoch(store, 1), [1, 2]))
        store.commit(rows.results(rows.epoch(store, 1), [1, 2], seq=1))
        store.commit(rows.claim(rows.epoch(store, 2), [3]))
        store.commit(rows.run(20, "run"))
        store.commit(rows.flow_steps(20, [22]))
        db = store._opened
        asked = read(db)
        told = {key: value for key, value in asked.items() if key != ("dq_step", 9)}
        promise = Promise(told, True, store.next_id(), 1, store.salt())
        assert not judge(db, promise, asked)
        db.execute(damage)
        found = judge(db, promise, asked)
        assert any(re.search(finding, line) for line in found), found
    finally:
        store.close(clean=False)
