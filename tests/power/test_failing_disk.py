"""The n-th call of the disk fails, for each n: nothing acknowledged is lost, and a disk that has failed is not trusted."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import apsw
import pytest

from dq import errors
from dq.store import faults
from dq.store.store import Store
from tests.power import crew
from tests.power.account import ERRORS, Account
from tests.power.disk import DELETE_FAILS, EIO, FULL, SHORT, SYNC, Disk, Fault
from tests.power.platter import Platter
from tests.power.script import Script
from tests.power.sweep import Sweep
from tests.power.trial import KINDS, Deed, Make, each_call
from tests.store import rows

DEEDS = 9  # that the script does
STRIDE = 83  # calls between two of those that fail in the short test
OLD_FILE = Path(__file__).parents[1] / "store" / "files" / "schema-1.db"


def nothing(_: Script) -> None:
    """A deed is tried on a supervisor that has booted, so this is its boot alone."""


def begin(script: Script) -> None:
    """What each of the deeds below finds: work that waits, work that is claimed, work that is done, and a log."""
    for deed in (script.boot, script.submit, script.start, script.claim, script.complete, script.claim):
        script.attempt(deed)
    script.attempt(script.sync)


def killed(script: Script) -> None:
    begin(script)
    script.attempt(script.submit)
    script.end()


def ended(script: Script) -> None:
    begin(script)
    for _ in range(3):
        script.attempt(script.complete)
        script.attempt(script.claim)
    script.attempt(script.sync)


DEEDS_BY_NAME: dict[str, tuple[Deed, Deed, Path | None]] = {
    "open a new file, boot": (nothing, nothing, None),
    "open what a kill has left, boot": (killed, nothing, None),
    "open an earlier version's, boot": (nothing, nothing, OLD_FILE),
    "claim": (begin, Script.claim, None),
    "complete": (begin, Script.complete, None),
    "checkpoint": (begin, Script.checkpoint, None),
    "grow the log": (begin, Script.pregrow, None),
    "delete": (ended, Script.sweep, None),
    "close, open again": (begin, Script.restart, None),
}


@pytest.mark.parametrize(
    ("seed", "stride"), [(0, STRIDE), *(pytest.param(n, 1, marks=pytest.mark.soak) for n in range(3))]
)
@pytest.mark.parametrize("fault", KINDS.values(), ids=KINDS.keys())
def test_each_nth_call(place: Path, fault: Make, seed: int, stride: int) -> None:
    """Of all that a supervisor does."""
    account = Account(ERRORS)
    each_call(account, place, fault, stride, lambda script: script.run(DEEDS), seed=seed, before=nothing)
    account.close(range(seed, seed + 1), 1)


@pytest.mark.parametrize(
    ("kinds", "stride"),
    [(list(KINDS), STRIDE), *(pytest.param([kind], 1, marks=pytest.mark.soak, id=kind) for kind in KINDS)],
)
@pytest.mark.parametrize("name", DEEDS_BY_NAME)
def test_each_nth_call_of_a_deed(place: Path, name: str, kinds: list[str], stride: int) -> None:
    """What follows meets the same disk, and so does the successor where the supervisor has to end."""
    before, deed, old = DEEDS_BY_NAME[name]
    account = Account(ERRORS)

    def go_on(script: Script) -> None:
        for thing in (partial(deed, script), script.submit, script.claim, script.sync, script.complete, script.sync):
            script.attempt(thing)

    for kind in kinds:
        each_call(account, place, KINDS[kind], stride, go_on, before=before, old=old)
    account.close(range(1), len(kinds))


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
        judge.also, judge.often = crew.resumes, 1.0
        assert not judge.examine(platter.cached(), shift.promise)


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


def test_a_log_that_can_t_be_removed_at_the_close(place: Path) -> None:
    """The file is whole and its log is durable; who closes hears of it in the words of dq."""
    with Disk(place / "live") as disk:
        store = Store.open(place / "live" / "f.db", vfs=disk.name)
        store.boot("boot-1")
        disk.fault = Fault(DELETE_FAILS, 0)
        with pytest.raises(errors.StoreError, match="can't be read or written"):
            store.close(clean=True)
        disk.fault = None
        store.close(clean=True)
        again = Store.open(place / "live" / "f.db", vfs=disk.name)
        assert not again.boot("boot-1").unclean
        again.close(clean=False)


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
