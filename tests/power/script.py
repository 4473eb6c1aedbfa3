"""A supervisor in small, which does by lot all that a supervisor does to its file, and notes what it may tell others.

What it knows it reads from the file at each boot, as a successor would, and from then on keeps in mind.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from functools import partial

from dq.errors import DiskFull, StoreError
from dq.store.group import AttemptRow, Group, LetterRow, RunChange, RunRow, SignalRow
from dq.store.guard import Statement
from dq.store.purges import RUN, STEP, Age
from dq.store.store import Store
from tests.power.disk import EIO, SYNC, Disk
from tests.power.verdict import Key, Promise, Rows, read, rows_of
from tests.store import rows

NOW = rows.NOW
OLD = Age(NOW + 1000, keep_failed=False, now=NOW + 1000)
_TABLE = "CREATE TABLE IF NOT EXISTS effect (id INTEGER PRIMARY KEY, value TEXT) STRICT"
_ROW = "INSERT INTO effect VALUES (?, ?)"
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


class Script:
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
        self.store: Store | None = None
        self.unsynced: Rows = {}
        self.open: list[int] = []  # steps that nobody has claimed
        self.held: dict[int, list[int]] = {}  # by claim
        self.batches: dict[int, int] = {}
        self.runs: dict[int, list[int]] = {}  # and their open steps
        self.seqs: dict[int, int] = {}
        self.next_id = 1
        self.counter = 0

    def run(self, count: int) -> None:
        """Boots, does so many things, and ends as by a kill."""
        with contextlib.suppress(Gone):
            self.attempt(self.boot)
            for _ in range(count):
                deeds = _DEEDS if self.open or self.held else [Script.submit, Script.start]
                self.attempt(self.chance.choice(deeds), self)
            self.attempt(self.sync)
            self.leave()

    def attempt(self, deed: Callable[..., None], *values: object) -> None:
        """Does it. A disk that fails ends the supervisor, and a successor starts from what is on the disk."""
        for _ in range(20):
            try:
                if self.store is None:
                    self.boot()
                deed(*values)
            except DiskFull:
                self.retries += 1
                self._make_room()
                if self.store is not None and self.store._epoch < 0:
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
        if self.store is None:
            return
        for call in (self.store.sync, self.store.checkpoint, self.store.next_id, partial(self.store.commit, Group())):
            try:
                call()
            except StoreError:
                continue
            raise AssertionError(f"a store whose disk has failed goes on with {call}")

    def leave(self) -> None:
        """Ends the supervisor as by a kill: nothing is put right. A failed disk's log is given back, as its process does."""
        if self.store is not None:
            store, self.store = self.store, None
            store.close(clean=False)

    # What a supervisor begins and ends with.

    def boot(self) -> None:
        self.store = store = None
        store = Store.open(self.path, clock=FixedClock(), vfs=self.disk.name)
        self.store = store
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
        self.asked |= {key: value for key, value in read(store._opened).items() if key not in self.asked}
        self.counter, self.unsynced = 0, {}
        done = {id for table, id in self.asked if table == "dq_result"} & {
            row.id for row in store.results([id for table, id in self.asked if table == "dq_step"])
        }
        self.open = [row[0] for first, last in store.open_batches() for row in store.open_steps(first, last, limit=1000)]
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
        assert self.store is not None
        self.store.close(clean=True)
        self.store = None
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
        assert self.store is not None
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
        assert self.store is not None
        self.store.sync()
        self.promise.next_id = self.next_id
        told, self.unsynced = self.unsynced, {}
        self.tell(told)

    # What it does.

    def payload(self, id: int) -> bytes:
        return b"p%d-" % id * (self.chance.choice((1, 1, 1, 40, 900)))

    def submit(self) -> None:
        first, count = self.next_id, self.chance.randint(1, 40 if self.chance.random() < 0.2 else 4)
        self.next_id = first + count
        ids = range(first, self.next_id)
        steps = [(id, 1, self.payload(id), NOW) for id in ids]
        self.commit(Group(lease_to=self.next_id, batches=[(first, ids[-1])], steps=steps))
        self.batches[first] = ids[-1]
        self.open += ids

    def start(self) -> None:
        id, count = self.next_id, self.chance.randint(1, 3)
        self.next_id += 1 + count
        ids = range(id + 1, self.next_id)
        steps = [(step, id, 1, "0", n, b"g" * 16, self.payload(step), NOW) for n, step in enumerate(ids)]
        run = RunRow(id, f"run-{id}", 2, self.payload(id), b"f" * 16, NOW)
        signal = SignalRow(id, id, id, "go", self.payload(id), NOW)
        self.commit(Group(lease_to=self.next_id, runs=[run], flow_steps=steps, signals=[signal]))
        self.runs[id] = list(ids)
        self.open += ids

    def claim(self) -> None:
        """Claims leave without a sync."""
        assert self.store is not None
        ids = self.chance.sample(self.open, min(len(self.open), self.chance.randint(1, 4)))
        if ids:
            self.counter += 1
            token = rows.epoch(self.store, self.counter)
            self.commit(Group(claims=[(token, 0, 77, json.dumps([[id, 1] for id in ids]), NOW)]))
            self.held[token] = ids
            self.open = [id for id in self.open if id not in ids]

    def end(self) -> None:
        """Results of a claim; the last of a batch or of a run close it."""
        if not self.held:
            return
        token, ids = self.chance.choice(list(self.held.items()))
        group = Group(closed_claims=[(token,)])
        effects: list[Statement] = []
        for id in ids:
            run = next((run for run, steps in self.runs.items() if id in steps), None)
            seq = None if run is None else self.seqs.get(run, 0) + 1 + sum(row[0] in self.runs[run] for row in group.results)
            group.results.append((id, seq, "completed", 1, token, 77, NOW + 5, NOW + 7, b"r" + self.payload(id)))
        if ids and self.chance.random() < 0.3:
            effects = [Statement(_TABLE, ()), Statement(_ROW, (ids[0], f"effect of {ids[0]}"), 1)]
            self.asked["effect", ids[0]] = f"effect of {ids[0]}"
        left = {run: [id for id in steps if id not in ids] for run, steps in self.runs.items()}
        for run in [run for run, steps in left.items() if not steps]:
            group.run_changes.append(RunChange("completed", NOW + 9, b"end", None, run, "running"))
        still = {*self.open, *(id for other, mine in self.held.items() if other != token for id in mine)}
        over = [first for first, last in self.batches.items() if still.isdisjoint(range(first, last + 1))]
        group.closed_batches = [(first,) for first in over]
        self.commit(group, tuple(effects))
        for row in group.results:
            if row[1] is not None:
                run = next(run for run, steps in self.runs.items() if row[0] in steps)
                self.seqs[run] = max(self.seqs.get(run, 0), row[1])
        self.runs = {run: steps for run, steps in left.items() if steps}
        self.batches = {first: last for first, last in self.batches.items() if first not in over}
        del self.held[token]

    def crash(self) -> None:
        """A worker dies with a claim: what it held goes back."""
        if not self.held:
            return
        token, ids = self.chance.choice(list(self.held.items()))
        attempts = [AttemptRow(id, 1, token, "crashed", 77, 1, "signal 9", NOW + 6) for id in ids[:1]]
        letters = [LetterRow(token >> 40 << 20 | self.counter, "discarded", None, NOW)] if self.chance.random() < 0.2 else []
        self.commit(Group(attempts=attempts, closed_claims=[(token,)], letters=letters))
        self.open += ids
        del self.held[token]

    def sweep(self) -> None:
        """Takes out what ended long ago."""
        assert self.store is not None
        if self.chance.random() < 0.5:
            ids = [id for page in self.store.old_steps(OLD) for id in page][: self.chance.randint(1, 5)]
            self.gone |= {(table, id) for id in ids for table in ("dq_step", "dq_result", "dq_letter")}
            kind = STEP
        else:
            ids = [id for page in self.store.old_runs(OLD) for id, _ in page][:2]
            self.gone |= {(table, id) for id in ids for table in ("dq_run", "dq_letter", "end")}
            kind = RUN
        if ids:
            self.store.purge(kind, ids, 1.0)

    def checkpoint(self) -> None:
        assert self.store is not None
        self.store.checkpoint()

    def pregrow(self) -> None:
        assert self.store is not None
        self.store.pregrow()

    def compact(self) -> None:
        assert self.store is not None
        if self.chance.random() < 0.2:
            self.store.compact()


_DEEDS = [
    *[Script.submit] * 4, Script.start, Script.start, *[Script.claim] * 6, *[Script.end] * 6, *[Script.sync] * 6,
    Script.crash, Script.checkpoint, Script.checkpoint, Script.pregrow, Script.sweep, Script.compact, Script.kill,
    Script.kill, Script.restart,
]  # fmt: skip
