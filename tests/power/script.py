"""A supervisor in small, which does by lot all that a supervisor does to its file."""

from __future__ import annotations

import contextlib
import json

from dq.errors import StoreError
from dq.store.group import AttemptRow, Group, LetterRow, RunChange, RunRow, SignalRow
from dq.store.guard import Statement
from dq.store.purges import RUN, STEP, Age
from tests.power.keeper import NOW, Gone, Keeper
from tests.store import rows

OLD = Age(NOW + 1000, keep_failed=False, now=NOW + 1000)
_TABLE = "CREATE TABLE IF NOT EXISTS effect (id INTEGER PRIMARY KEY, value TEXT) STRICT"
_ROW = "INSERT INTO effect VALUES (?, ?)"


class Script(Keeper):
    """See the module."""

    def run(self, count: int) -> None:
        """Boots, does so many things, and ends as by a kill."""
        with contextlib.suppress(Gone):
            self.attempt(bool)
            for _ in range(count):
                deeds = _DEEDS if self.open or self.held else [Script.submit, Script.start]
                self.attempt(self.chance.choice(deeds), self)
            self.attempt(self.sync)
        self.end()

    def end(self) -> None:
        """As by a kill."""
        self.leave()
        if self.reader is not None:
            self.look()

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
        ids = self.chance.sample(self.open, min(len(self.open), self.chance.randint(1, 4)))
        if ids:
            self.counter += 1
            token = rows.epoch(self.store, self.counter)
            self.commit(Group(claims=[(token, 0, 77, json.dumps([[id, 1] for id in ids]), NOW)]))
            self.held[token] = ids
            self.open = [id for id in self.open if id not in ids]

    def complete(self) -> None:
        """Results of a claim; the last of a batch or of a run close it."""
        if not self.held:
            return
        token, ids = self.chance.choice(list(self.held.items()))
        group = Group(closed_claims=[(token,)])
        effects: list[Statement] = []
        for id in ids:
            run = next((run for run, steps in self.runs.items() if id in steps), None)
            seq = (
                None
                if run is None
                else self.seqs.get(run, 0) + 1 + sum(row[0] in self.runs[run] for row in group.results)
            )
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
        letters = (
            [LetterRow(token >> 40 << 20 | self.counter, "discarded", None, NOW)] if self.chance.random() < 0.2 else []
        )
        self.commit(Group(attempts=attempts, closed_claims=[(token,)], letters=letters))
        self.open += ids
        del self.held[token]

    def sweep(self) -> None:
        """Takes out what ended long ago."""
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
        self.store.checkpoint()

    def pregrow(self) -> None:
        self.store.pregrow()

    def compact(self) -> None:
        if self.chance.random() < 0.2:
            self.store.compact()

    def usurp(self) -> None:
        """A supervisor that has a successor believes that it is still the one. What it writes nobody shall see."""
        old, self._store = self.store, None
        try:
            self.boot()
            with contextlib.suppress(StoreError):
                late = self.next_id + 1_000_000
                old.commit(Group(batches=[(late, late)], steps=[(late, 1, b"late", NOW)]))
        finally:
            old.close(clean=False)


_DEEDS = [
    *[Script.submit] * 4, Script.start, Script.start, *[Script.claim] * 6, *[Script.complete] * 6, *[Script.sync] * 6,
    Script.crash, Script.checkpoint, Script.checkpoint, Script.pregrow, Script.sweep, Script.compact, Script.kill,
    Script.kill, Script.restart, Script.look, Script.usurp,
]  # fmt: skip
