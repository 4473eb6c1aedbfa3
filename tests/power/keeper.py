"""Holds a file as a supervisor does, notes what it may tell others, and begins anew where the disk fails.

What it knows it reads from the file at each boot, as a successor would, and from then on keeps in mind.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import apsw

from dq.errors import DiskFull, StoreError
from dq.store.group import Group
from dq.store.guard import Statement
from dq.store.store import UNBOOTED, Store
from tests.power.disk import EIO, SYNC, Disk
from tests.power.verdict import Key, Promise, Rows, read, rows_of
from tests.store import rows

NOW = rows.NOW
SICK = 3  # failures after which the disk is well again
TRIES = 3  # of a group for which there was no room


class Gone(Exception):
    """The disk is gone."""


class FixedClock:
    """Always the same time, so that a record depends on its lot alone."""

    def now(self) -> int:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class Keeper:
    """See the module.

    Attributes:
        promises: What was acknowledged, at each mark of the disk's record.
        asked: Rows that it has tried to write, whatever came of it.
        gone: Rows that it has tried to delete.
        failures: How often it has begun anew, since the disk had failed.
    """

    def __init__(self, disk: Disk, chance: random.Random, promise: Promise | None = None) -> None:
        self.disk = disk
        self.chance = chance
        self.path = str(disk.folder / "f.db")
        self.promise = promise or Promise()
        self.promises: list[Promise] = [self.promise.copy()]
        self.asked: Rows = {}
        self.gone: set[Key] = set()
        self.failures = 0
        self.retries = 0
        self._store: Store | None = None
        self.reader: apsw.Connection | None = None
        self.unsynced: Rows = {}
        self.open: list[int] = []  # steps that nobody has claimed
        self.held: dict[int, list[int]] = {}  # by claim
        self.batches: dict[int, int] = {}
        self.runs: dict[int, list[int]] = {}  # and their open steps
        self.seqs: dict[int, int] = {}
        self.next_id = 1
        self.counter = 0

    def attempt(self, deed: Callable[..., object], *values: object) -> None:
        """Does it. A disk that fails ends the supervisor, and a successor starts from what is on the disk."""
        for _ in range(20):
            try:
                if self._store is None:
                    self.boot()
                deed(*values)
            except DiskFull:
                self.retries += 1
                self._make_room()
                if self._store is not None and self._store._epoch == UNBOOTED:
                    self.leave()
            except StoreError:
                self.failures += 1
                self.refused()
                self.leave()
                self._heal()
            else:
                return
        raise AssertionError("the disk does not get well")

    def refused(self) -> None:
        """After a failure nothing more is written, and nothing is told to be on disk."""
        if self._store is None:
            return
        store = self._store
        for call in (store.sync, store.checkpoint, store.next_id, store.pregrow, partial(store.commit, Group())):
            try:
                call()
            except StoreError:
                continue
            raise AssertionError(f"a store whose disk has failed goes on with {call}")

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    def leave(self) -> None:
        """Ends the supervisor as by a kill: nothing is put right."""
        if self._store is not None:
            store, self._store = self._store, None
            store.close(clean=False)

    def look(self) -> None:
        """A reader comes, and stays in a transaction: the log can't be emptied, nor be recovered, meanwhile. Or it goes."""
        if self.reader is not None:
            reader, self.reader = self.reader, None
            reader.close()
            return
        reader = apsw.Connection(self.path, flags=apsw.SQLITE_OPEN_READONLY)
        reader.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        self.reader = reader

    # What a supervisor begins and ends with.

    def boot(self) -> None:
        self._store = store = Store.open(self.path, clock=FixedClock(), vfs=self.disk.name)
        boot = store.boot(f"boot-{self.chance.randint(1, 3)}")
        self.promise.epoch = boot.epoch
        self.promise.salt = store.salt()
        self._load(store)
        self.tell(read(store._opened))
        if not store.functions():
            self.commit(rows.functions())

    def _load(self, store: Store) -> None:
        """What is to be done; what the file shows is as good as told."""
        self.next_id = self.promise.next_id = max(store.next_id(), 1)
        if not self.asked:
            self.asked = read(store._opened)  # an earlier version has written it
        self.counter, self.unsynced = 0, {}
        done = {id for table, id in self.asked if table == "dq_result"} & {
            row.id for row in store.results([id for table, id in self.asked if table == "dq_step"])
        }
        self.open = [
            row[0] for first, last in store.open_batches() for row in store.open_steps(first, last, limit=1000)
        ]
        self.batches = dict(store.open_batches())
        self.held = {claim.epoch: [id for id, _ in claim.steps if id not in done] for claim in store.open_claims()}
        for ids in self.held.values():
            self.open = [id for id in self.open if id not in ids]
        self.runs = {run.id: store.open_ids(run.id) for run in store.unfinished_runs() if run.state == "running"}
        self.seqs = store.max_seqs()

    def kill(self) -> None:
        """A kill leaves what is committed where it is; the successor makes it durable."""
        self.leave()
        self.boot()

    def restart(self) -> None:
        """A clean stop, and a start."""
        self.store.close(clean=True)
        self._store = None
        self.boot()

    # What it tells.

    def tell(self, told: Rows) -> None:
        """These rows are known to be on disk, and so is all that was committed before."""
        self.promise.rows |= told
        self.promise.settled = True
        self.promises.append(self.promise.copy())
        self.disk.mark(len(self.promises) - 1)

    def commit(self, group: Group, statements: tuple[Statement, ...] = ()) -> None:
        """Writes a group; where there is no room the same one again, later."""
        self.asked |= rows_of(group)
        for left in reversed(range(TRIES)):
            try:
                if statements:
                    self.store.commit_effects(statements, lambda: group)
                else:
                    self.store.commit(group)
            except DiskFull:
                self.retries += 1
                if not left:
                    raise
                self._make_room()
            else:
                break
        self.unsynced |= rows_of(group)

    def _make_room(self) -> None:
        if self.disk.fault is not None:
            self.disk.fault.on = not self.disk.fault.lasting

    def _heal(self) -> None:
        """A full disk gets room. One whose syncs fail gets well after a while; one that nothing works with does not."""
        fault = self.disk.fault
        if fault is not None and fault.lasting:
            if fault.kind == EIO:
                raise Gone
            fault.on = fault.kind == SYNC and self.failures < SICK

    def sync(self) -> None:
        self.store.sync()
        self.promise.next_id = self.next_id
        told, self.unsynced = self.unsynced, {}
        self.tell(told)
