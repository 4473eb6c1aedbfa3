"""The power goes at any moment, and a disk has written what it liked of what was not synced."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dq.store.store import Store
from tests.power import crew
from tests.power.disk import END_SYNC, MARK, WRITE, Disk, Event
from tests.power.platter import Platter
from tests.power.script import Script
from tests.power.sweep import Sweep, Tally
from tests.power.verdict import Key, Promise, Rows
from tests.store import rows

OLD_FILE = Path(__file__).parents[1] / "store" / "files" / "schema-1.db"
SOAK = 40  # seeds of each kind

Book = Callable[..., None]


def seeds(few: int, many: int = SOAK) -> list[object]:
    """A few for every run of the tests, the others for the long one."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(few, many))]


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


@pytest.mark.parametrize("seed", seeds(2))
def test_whatever_a_supervisor_does(place: Path, book: Book, seed: int) -> None:
    chance = random.Random(seed)
    soak = seed >= 2
    with Disk(place / "live") as disk:
        script = Script(disk, chance)
        script.run(80 if soak else 25)
    tally = sweep(place, disk, script, cuts=6 if soak else 1, share=0.3 if soak else 0.12)
    book(cuts=tally.cuts, images=tally.images)
    assert not tally.findings
    assert tally.images > 30


@pytest.mark.parametrize("seed", seeds(1))
def test_a_file_of_an_earlier_version(place: Path, book: Book, seed: int) -> None:
    shutil.copy(OLD_FILE, place / "live" / "f.db")
    with Disk(place / "live") as disk:
        script = Script(disk, random.Random(seed))
        script.run(6)
    tally = sweep(place, disk, script, cuts=2, share=0.1 if seed == 0 else 0.5)
    book(cuts=tally.cuts, images=tally.images)
    assert not tally.findings


@pytest.mark.parametrize("seed", seeds(1))
def test_one_cut_after_the_other(place: Path, book: Book, seed: int) -> None:
    """The successor is cut off as well, while it still puts right what the first cut has left."""
    chance = random.Random(seed)
    promise = Promise()
    asked: Rows = {}
    gone: set[Key] = set()
    for number in range(8 if seed else 4):
        with Disk(place / "live") as disk:
            script = Script(disk, chance, promise)
            script.asked, script.gone = asked, gone
            script.run(chance.choice((0, 0, 3, 12)))
        judge = Sweep(disk, script.promises, script.asked, script.gone, chance, place)
        tally = judge.run(1, 0.1 if seed else 0.05)
        book(cuts=tally.cuts, images=tally.images)
        assert not tally.findings, f"after {number} cuts"
        platter, promise = Platter(disk), script.promises[0].copy()
        for event in disk.events[: chance.randint(0, len(disk.events))]:
            platter.apply(event)
            promise = script.promises[event.at].copy() if event.kind == MARK else promise
        image = chance.choice(list(platter.cuts(chance, 6)))
        promise.settled, asked, gone = False, script.asked, script.gone
        shutil.rmtree(place / "live")
        (place / "live").mkdir()
        for name, content in image.items():
            (place / "live" / name).write_bytes(content)


@pytest.mark.parametrize("slow", [False, True], ids=["inline", "in a thread"])
@pytest.mark.parametrize("seed", seeds(1))
def test_what_clients_and_hosts_were_told(place: Path, book: Book, seed: int, slow: bool) -> None:
    """The whole supervisor, and its sync in the loop or beside it. Some of what is left is worked off to the end."""
    chance = random.Random(seed)
    with Disk(place / "live") as disk:
        shift = crew.record(place / "live", disk, chance, 100 if seed else 50, slow=slow)
    assert shift.promise.rows
    judge = Sweep(disk, shift.promises, shift.asked, set(), chance, place)
    judge.also = crew.resumes
    tally = judge.run(4 if seed else 1, 0.3 if seed else 0.06)
    book(cuts=tally.cuts, images=tally.images)
    assert not tally.findings


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
