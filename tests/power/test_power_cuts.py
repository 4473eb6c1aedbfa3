"""The power goes at any moment, and a disk has written what it liked of what was not synced."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from dq.store.store import Store
from tests.power import crew
from tests.power.account import Account, Size, sizes
from tests.power.disk import END_SYNC, MARK, WRITE, Disk, Event
from tests.power.platter import Platter
from tests.power.script import Script
from tests.power.sweep import Sweep, Tally
from tests.power.verdict import Key, Promise, Rows, held_by
from tests.store import rows

OLD_FILE = Path(__file__).parents[1] / "store" / "files" / "schema-1.db"


def live(place: Path, seed: int) -> Path:
    folder = place / f"live-{seed}"
    folder.mkdir()
    return folder


def sweep(place: Path, disk: Disk, script: Script, *, cuts: int, share: float) -> Tally:
    return Sweep(disk, script.promises, script.asked, script.gone, script.chance, place).run(cuts, share)


def test_each_call_of_a_commit_and_its_sync_goes_through_the_disk(place: Path) -> None:
    with Disk(place / "live") as disk:
        store = Store.open(place / "live" / "f.db", vfs=disk.name)
        store.boot("boot-1")
        begun = len(disk.events)
        store.commit(rows.functions())
        assert {(event.kind, event.name) for event in disk.events[begun:]} == {(WRITE, "f.db-wal")}
        store.sync()
        assert (disk.events[-1].kind, disk.events[-1].name) == (END_SYNC, "f.db-wal")
        store.close(clean=True)
        platter = Platter(disk)
        for event in disk.events:
            platter.apply(event)
        live = {path.name: path.read_bytes() for path in (place / "live").iterdir()}
        assert platter.cached() == live, "the record tells all that was done to the files"


def test_a_new_file_at_every_moment(place: Path) -> None:
    with Disk(place / "live") as disk:
        script = Script(disk, random.Random(0))
        script.boot()
        script.submit()
        script.sync()
        script.leave()
    tally = sweep(place, disk, script, cuts=1, share=0.25)
    assert not tally.findings
    assert tally.images > 30


def test_a_new_file_before_its_first_commit(place: Path) -> None:
    """Even where so little of it is there that it could be anybody's."""
    with Disk(place / "live") as disk:
        script = Script(disk, random.Random(0))
        script.boot()
        script.leave()
    first = next(number for number, event in enumerate(disk.events) if event.name == "f.db-wal" and event.at)
    del disk.events[first:]
    tally = sweep(place, disk, script, cuts=40, share=1.0)
    assert not tally.findings
    assert tally.images > 20


@sizes(Size(range(2), 25, 1, 0.12), Size(range(24), 80, 6, 0.3), at_once=2)
def test_whatever_a_supervisor_does(place: Path, size: Size) -> None:
    account = Account()
    for seed in size.seeds:
        with Disk(live(place, seed)) as disk:
            script = Script(disk, random.Random(seed))
            script.run(size.deeds)
        if not account.add(sweep(place, disk, script, cuts=size.cuts, share=size.share), f"seed {seed}"):
            break
    account.close(size.seeds, 30 * len(size.seeds))


@sizes(Size(range(1), 6, 2, 0.1), Size(range(12), 6, 2, 0.5), at_once=4)
def test_a_file_of_an_earlier_version(place: Path, size: Size) -> None:
    """Its upgrade is cut off, or what comes after it."""
    account = Account()
    for seed in size.seeds:
        folder = live(place, seed)
        held = held_by(Path(shutil.copy(OLD_FILE, folder / "f.db")))
        with Disk(folder) as disk:
            script = Script(disk, random.Random(seed), Promise(dict(held)))
            script.asked = held
            script.run(size.deeds)
        if not account.add(sweep(place, disk, script, cuts=size.cuts, share=size.share), f"seed {seed}"):
            break
    account.close(size.seeds, 10 * len(size.seeds))


@sizes(Size(range(1), 12, 1, 0.05), Size(range(20), 12, 1, 0.1), at_once=10)
def test_one_cut_after_the_other(place: Path, size: Size) -> None:
    """The successor is cut off as well, while it still puts right what the first cut has left."""
    account = Account()
    for seed in size.seeds:
        if not _cuts_in_a_row(place, live(place, seed), random.Random(seed), size, account):
            break
    account.close(size.seeds, 10 * len(size.seeds))


def _cuts_in_a_row(place: Path, folder: Path, chance: random.Random, size: Size, account: Account) -> bool:
    promise = Promise()
    asked: Rows = {}
    gone: set[Key] = set()
    for number in range(8 if len(size.seeds) > 1 else 4):
        with Disk(folder) as disk:
            script = Script(disk, chance, promise)
            script.asked, script.gone = asked, gone
            script.run(chance.choice((0, 0, 3, size.deeds)))
        if not account.add(sweep(place, disk, script, cuts=1, share=size.share), f"{folder.name}, after {number} cuts"):
            return False
        platter, promise = Platter(disk), script.promises[0].copy()
        for event in disk.events[: chance.randint(0, len(disk.events))]:
            platter.apply(event)
            promise = script.promises[event.at].copy() if event.kind == MARK else promise
        image = chance.choice(list(platter.cuts(chance, 6)))
        promise.settled, asked, gone = False, script.asked, script.gone
        shutil.rmtree(folder)
        folder.mkdir()
        for name, content in image.items():
            (folder / name).write_bytes(content)
    return True


@pytest.mark.parametrize("slow", [False, True], ids=["inline", "in a thread"])
@sizes(Size(range(1), 50, 1, 0.06), Size(range(36), 100, 4, 0.3), at_once=3)
def test_what_clients_and_hosts_were_told(place: Path, size: Size, slow: bool) -> None:
    """The whole supervisor, and its sync in the loop or beside it. Some of what is left is worked off to the end."""
    account = Account()
    for seed in size.seeds:
        folder, chance = live(place, seed), random.Random(seed)
        with Disk(folder) as disk:
            shift = crew.record(folder, disk, chance, size.deeds, slow=slow)
        assert shift.promise.rows
        judge = Sweep(disk, shift.promises, shift.asked, set(), chance, place)
        judge.also = crew.resumes
        if not account.add(judge.run(size.cuts, size.share), f"seed {seed}"):
            break
    account.close(size.seeds, 10 * len(size.seeds))


def test_a_seed_gives_the_same_record_again(place: Path) -> None:
    """Only so can a cut that was found be looked at again."""
    records: list[list[Event]] = []
    for number in range(2):
        folder = place / str(number)
        folder.mkdir()
        with Disk(folder) as disk:
            shift = crew.record(folder, disk, random.Random(5), 80, slow=True)
        records.append([event for event in disk.events if event.name == "f.db-wal" or event.kind == MARK])
        assert shift.promise.rows
    assert [event[:3] for event in records[0]] == [event[:3] for event in records[1]]
