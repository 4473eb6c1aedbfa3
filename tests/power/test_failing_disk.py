"""The n-th call of the disk fails, for each n: nothing acknowledged is lost, and a disk that has failed is not trusted."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from dq import errors
from dq.store import faults
from dq.store.store import Store
from tests.power import crew
from tests.power.disk import EIO, FULL, SHORT, SYNC, Disk, Fault
from tests.power.platter import Platter
from tests.power.script import Script
from tests.power.sweep import Sweep
from tests.store import rows

KINDS = {
    "a call": lambda at: Fault(EIO, at),
    "a call or a read": lambda at: Fault(EIO, at, reads=True),
    "all calls from one on": lambda at: Fault(EIO, at, lasting=True),
    "a call for want of room": lambda at: Fault(FULL, at),
    "all from one on for want of room": lambda at: Fault(FULL, at, lasting=True),
    "half a write": lambda at: Fault(SHORT, at),
    "a sync": lambda at: Fault(SYNC, at),
    "all syncs from one on, for a while": lambda at: Fault(SYNC, at, lasting=True),
}
STEPS = 9  # what the script does
kinds = pytest.mark.parametrize("fault", KINDS.values(), ids=KINDS.keys())
Make = Callable[[int], Fault]


def fails(place: Path, fault: Fault, seed: int) -> tuple[Script, list[str]]:
    """Lets the script run on a disk that fails, and cuts the power at some moments."""
    chance = random.Random(seed)
    folder = place / f"{seed}-{fault.at}"
    folder.mkdir()
    with Disk(folder) as disk:
        disk.fault = fault
        script = Script(disk, chance)
        script.run(STEPS)
    judge = Sweep(disk, script.promises, script.asked, script.gone, chance, place)
    tally = judge.run(1, 0.01)
    platter, marks = Platter(disk), 0
    for event in disk.events:
        platter.apply(event)
    marks = len(script.promises) - 1
    judge._states = [judge._state(platter.cached())]  # all is over: it is as the kernel shows it, or it is not
    for image in (platter.cached(), *list(platter.cuts(chance, 1))[:3]):
        found = judge.examine(image, script.promises[marks], 0)
        tally.findings += [f"at the end: {what}" for what in found if "no commit" not in what]
    return script, tally.findings


@kinds
def test_each_nth_call(place: Path, fault: Make) -> None:
    at = fired = 0
    while True:
        made = fault(at)
        _, findings = fails(place, made, 0)
        if not made.fired:
            break
        fired += 1
        assert not findings, f"the call {at} failed: {made.failed}"
        at += 83
    assert fired


@pytest.mark.soak
@kinds
@pytest.mark.parametrize("seed", range(3))
def test_each_nth_call_in_full(place: Path, book: Callable[..., None], fault: Make, seed: int) -> None:
    at = 0
    while True:
        made = fault(at)
        _, findings = fails(place, made, seed)
        if not made.fired:
            break
        assert not findings, f"the call {at} failed: {made.failed}"
        at += 1
    book(faults=at)
    assert at > 10


@pytest.mark.parametrize("seed", range(2))
def test_a_whole_supervisor_whose_disk_is_full(place: Path, seed: int) -> None:
    """Each group that finds no room is written later, once."""
    for at in range(30, 150, 60):
        folder = place / f"{seed}-{at}"
        folder.mkdir()
        fault = Fault(FULL, at, lasting=True)
        with Disk(folder) as disk:
            shift = crew.record(folder, disk, random.Random(seed), 40, fault=fault)
        assert fault.fired
        platter = Platter(disk)
        for event in disk.events:
            platter.apply(event)
        judge = Sweep(disk, shift.promises, shift.asked, set(), shift.chance, place)
        judge._states = [judge._state(platter.cached())]
        judge.also, judge.often = crew.resumes, 1.0
        assert not judge.examine(platter.cached(), shift.promise, 0)


def test_a_group_without_room_lands_once(place: Path) -> None:
    with Disk(place / "live") as disk:
        store = Store.open(place / "live" / "f.db", vfs=disk.name)
        store.boot("boot-1")
        store.commit(rows.functions())
        disk.fault = Fault(SHORT, 3)
        with pytest.raises(errors.DiskFull):
            store.commit(rows.batch(1, 5))
        assert store.known_steps(range(1, 6)) == set()
        store.commit(rows.batch(1, 5))
        store.sync()
        assert store.known_steps(range(1, 6)) == set(range(1, 6))
        store.close(clean=False)


def test_a_failed_sync_on_a_full_disk_is_a_failed_sync(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Where a disk is full, some say so at the sync only; to try the same again would prove nothing."""
    monkeypatch.setattr(faults, "room", lambda _folder: 0)
    with Disk(place / "live") as disk:
        store = Store.open(place / "live" / "f.db", vfs=disk.name)
        store.boot("boot-1")
        disk.fault = Fault(SYNC, 0)
        with pytest.raises(errors.StoreError) as caught:
            store.checkpoint()
        assert not isinstance(caught.value, errors.DiskFull)
        with pytest.raises(errors.StoreError):
            store.sync()
        store.close(clean=False)
    shared = apsw.IOError("the shared memory")
    shared.extendedresult = apsw.SQLITE_IOERR_SHMSIZE  # type: ignore[attr-defined]
    assert isinstance(faults.explain(shared, "/f.db"), errors.DiskFull)


def test_growing_a_log_on_a_failing_disk(place: Path) -> None:
    with Disk(place / "live") as disk:
        store = Store.open(place / "live" / "f.db", vfs=disk.name)
        store.boot("boot-1")
        disk.fault = Fault(FULL, 0)
        assert not store.pregrow(), "for want of room it is left as it is"
        disk.fault = Fault(EIO, 2)
        with pytest.raises(errors.StoreError, match="can't be written"):
            store.pregrow()
        with pytest.raises(errors.StoreError):
            store.commit(rows.functions())
        store.close(clean=False)
