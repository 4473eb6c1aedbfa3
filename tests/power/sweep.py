"""Cuts the power at each moment of a record, and judges what a successor finds."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dq.errors import StoreError
from dq.store.store import Store
from tests.power.disk import MARK, Disk
from tests.power.keeper import FixedClock
from tests.power.platter import Image, Platter
from tests.power.verdict import Key, Promise, Rows, judge, state
from tests.store import rows

MEMORY = Path("/dev/shm")  # syncs cost nothing there

RESUMED = 0.4  # share of the files that a successor goes on with, and is not only judged by what they hold


@dataclass
class Tally:
    """What a sweep has tried, and what it has found.

    Attributes:
        cuts: Power cuts that were judged.
        images: How many different contents of the files they left.
        findings: What was wrong, by the moment.
    """

    cuts: int = 0
    images: int = 0
    findings: list[str] = field(default_factory=list)


@contextmanager
def workshop() -> Iterator[Path]:
    """A folder in memory, if there is such a place."""
    with tempfile.TemporaryDirectory(prefix="dq-power-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


class Sweep:
    """Judges the power cuts of one record.

    Attributes:
        promises: What was acknowledged at each mark of the record.
        asked: Rows that somebody has tried to write.
        gone: Rows that somebody has tried to delete.
        also: Another judgement, of a share `often` of the files.
        tally: What came of it.
    """

    def __init__(
        self, disk: Disk, promises: list[Promise], asked: Rows, gone: set[Key], chance: random.Random, folder: Path
    ) -> None:
        self.disk = disk
        self.promises = promises
        self.asked = asked
        self.gone = gone
        self.tally = Tally()
        self.also: Callable[[Path], list[str]] | None = None
        self.often = 0.1
        self._chance = chance
        self._folder = folder
        self._states: list[str] = []  # what the file held after each commit
        self._seen: dict[tuple[int, int, int], list[str]] = {}

    def run(self, cuts: int, share: float = 1.0, *, findings: int = 5) -> Tally:
        """Cuts the power at a share of all moments, about so many times at each; ends early with so many findings."""
        platter = Platter(self.disk)
        promise, least = 0, 0
        self._states = [self._state(platter.cached())]
        for number, event in enumerate(self.disk.events):
            platter.apply(event)
            while platter.commits >= len(self._states):
                self._states.append(self._state(platter.cached()))
            if event.kind == MARK:
                promise = event.at
                least = platter.commits if self.promises[promise].settled else least
                continue
            if self._chance.random() > share:
                continue
            for image in platter.cuts(self._chance, cuts):
                found = self._judged(image, promise, least)
                self.tally.cuts += 1
                self.tally.findings += [f"at {number} ({event!r}), promise {promise}: {what}" for what in found]
                if len(self.tally.findings) >= findings:
                    return self.tally
        return self.tally

    def _judged(self, image: Image, promise: int, least: int) -> list[str]:
        key = hash(tuple(sorted(image.items()))), promise, least
        if key not in self._seen:
            self.tally.images += 1
            self._seen[key] = self.examine(image, self.promises[promise], least)
        return self._seen[key]

    def _put(self, image: Image) -> Path:
        folder = self._folder / "image"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, content in image.items():
            (folder / name).write_bytes(content)
        if self._chance.random() < 0.1:  # whatever was in shared memory may be in a file now, and means nothing
            (folder / "f.db-shm").write_bytes(self._chance.randbytes(self._chance.choice((100, 32768))))
        return folder / "f.db"

    def _state(self, image: Image) -> str:
        store = Store.open(self._put(image), clock=FixedClock())
        try:
            return state(store._opened)
        finally:
            store.close(clean=False)

    def examine(self, image: Image, promise: Promise, least: int | None = None) -> list[str]:
        """Opens what is left as a successor does, judges it, and goes on with it. `least`: commits that must be there."""
        path = self._put(image)
        try:
            store = Store.open(path, clock=FixedClock())
        except StoreError as error:
            return [f"it can't be opened: {error}"]
        try:
            found = judge(store._opened, promise, self.asked, self.gone)
            now = state(store._opened)
            if least is not None and now not in self._states[least:]:
                early = now in self._states[:least]
                found.append("commits that were acknowledged are undone" if early else "it is as after no commit")
            if self._chance.random() < RESUMED:
                found += _goes_on(store, promise)
        except StoreError as error:
            found = [f"a successor can't work with it: {error}"]
        finally:
            store.close(clean=False)
        if self.also is not None and not found and self._chance.random() < self.often:
            found += self.also(path)
        return found


def _goes_on(store: Store, promise: Promise) -> list[str]:
    """A successor boots, and writes something."""
    found: list[str] = []
    boot = store.boot("boot-later")
    if boot.epoch <= promise.epoch:
        found.append(f"two supervisors have the number {boot.epoch}")
    id = store.next_id()
    if id < promise.next_id:
        found.append(f"the id {id} is given out again")
    if not store.functions():
        store.commit(rows.functions())
    store.commit(rows.batch(id, id))
    token = rows.epoch(store, 1)
    store.commit(rows.claim(token, [id]))
    ended = rows.results(token, [id])
    ended.closed_batches = [(id,)]
    store.commit(ended)
    store.sync()
    if [row.payload for row in store.results([id])] != [rows.RESULT]:
        found.append("what is written now can't be read")
    return found
