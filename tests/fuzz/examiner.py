"""Opens damaged databases as dq does and says what came of it, one line for each: a process of its own, which may die.

    python -m tests.fuzz.examiner FOLDER FIRST LAST   # FOLDER is where `specimen.make` has been at work

A line `N ...` begins image N; `ok`, `refused` or `wrong` and why ends it. A hang ends the process by SIGALRM.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from click import Command

from dq.cli import ls, show
from dq.cli.doctor.command import examine
from dq.errors import DamagedPayload, DqError, StoreError
from dq.executor.codec import Codec
from dq.model.payload import FAILURE, unseal
from dq.store.group import Group
from dq.store.reader import Reader
from dq.store.store import Store
from tests.fuzz import specimen, surgery

HANG = 20  # seconds after which one image counts as a hang
Truth = dict[tuple[str, int], set[bytes]]


class Wrong(Exception):
    """An answer that is none."""


class Examination:
    """One image, looked at in every way; `refusals` are the errors of dq that were raised."""

    def __init__(self, db: Path, truth: Truth, *, odd: bool) -> None:
        self.db = str(db)
        self._odd = odd  # of what is much alike, half of the images see the one and half the other
        self._truth = truth
        self._codec = Codec(self.db + ".blobs")
        self.refusals: list[str] = []

    def run(self) -> None:
        for part in (self._reader, self._list, self._show, self._doctor, self._store):
            self._asks(part)

    def _asks(self, part: Callable[[], object]) -> None:
        """An error of dq names the file, and says what to do."""
        try:
            part()
        except DqError as error:
            self.refusals.append(type(error).__name__)
            if isinstance(error, StoreError) and (self.db not in str(error) or len(str(error)) < 60):
                raise Wrong(f"an error that does not help: {error}") from error

    def holds(self, column: str, id: int, payload: bytes | None) -> None:
        """A payload that was read is what was stored there, or is known to be damaged."""
        if payload is None:
            return
        try:
            tag, _ = unseal(payload)
            if tag != FAILURE:
                self._codec.loads(payload)
        except DamagedPayload as error:
            self.refusals.append(type(error).__name__)
            return
        if payload not in self._truth.get((column, id), ()):
            raise Wrong(f"{column} of {id} is {bytes(payload[:80])!r}")

    def _reader(self) -> None:
        with Reader.open(self.db) as reader:
            for ask in (reader.engine, reader.run_counts, reader.step_counts, reader.schedules, reader.open_steps):
                self._asks(ask)
            for run, name in specimen.RUNS.items():
                self._asks(partial(self._run, reader, run, name))
            for id in specimen.ALONE[self._odd :: 4]:
                self._asks(partial(self._step, reader, id))

    def _run(self, reader: Reader, run: int, name: str) -> None:
        line = reader.run(name)
        if line is None or line.id != run:
            return
        for column, payload in zip(("run.args", "run.payload"), reader.run_payloads(name) or (), strict=False):
            self.holds(column, run, payload)
        for step in reader.steps(run)[::3]:
            self._step(reader, step.id)

    def _step(self, reader: Reader, id: int) -> None:
        if (found := reader.step_result(id)) is not None:
            self.holds("result.payload", id, found[1])

    def _list(self) -> None:
        _call(ls.command, db=self.db, everything=False, unfinished=self._odd, limit=50, as_json=self._odd)

    def _show(self) -> None:
        for id in ("movie-1", "31") if self._odd else ("movie-2", "35"):
            self._asks(partial(_call, show.command, id=id, db=self.db, limit=50, as_json=id == "movie-2"))

    def _doctor(self) -> None:
        for one in examine(self.db):
            assert one.what
            assert one.do

    def _store(self) -> None:
        store = Store.open(self.db, create=False)
        try:
            store.boot("boot-2")
            self._records(store)
            store.commit(Group(lease_to=store.next_id() + 5))
            store.sync()
            store.checkpoint()
            store.close(clean=True)
        except Exception as error:  # as a supervisor does that recovers
            store.suspect(error)
            raise
        finally:
            with contextlib.suppress(StoreError):
                store.close(clean=False)

    def _records(self, store: Store) -> None:
        for ask in (
            store.contexts, store.functions, store.salt, store.open_waits, store.open_flow_terms, store.queues, store.begins,
            store.progress, store.max_seqs, store.open_claims, store.open_flow_functions, store.last_signal,
        ):  # fmt: skip
            ask()
        for record in store.unfinished_runs():
            self.holds("run.args", record.id, record.args)
        for run in specimen.RUNS:
            for step in store.run_steps(run):
                self.holds("step.args", step.id, step.args)
                self.holds("result.payload", step.id, step.payload or None)
        for row in store.results(specimen.ALONE):
            self.holds("result.payload", row.id, row.payload)
        for first, last in store.open_batches():
            for id, _, args in store.open_steps(first, last):
                self.holds("step.args", id, args)
        for signal_row in store.open_signals():
            self.holds("signal.payload", signal_row.id, signal_row.payload)
        for schedule in store.schedules():
            self.holds("schedule.args", schedule.next_at, schedule.args)
        store.attempts(specimen.ALONE)
        store.failures(specimen.ALONE)


def _call(command: Command, **options: object) -> None:
    """What a command does, without the reading of its words."""
    assert command.callback is not None
    command.callback(**options)


def look(folder: Path, scratch: Path, seed: int, truth: Truth) -> str:
    """Makes one image, examines it and says what came of it."""
    dice = random.Random(seed)
    shutil.copytree(folder / dice.choice(["closed", "killed"]), scratch)
    did = surgery.operate(dice, scratch)
    print(seed, did, flush=True)
    examination = Examination(scratch / "f.db", truth, odd=seed % 2 == 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            examination.run()
    except BaseException as error:
        where = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
        return f"wrong {' '.join(f'{type(error).__name__}: {error}'.split())[:300]} at {' '.join(where)}"
    finally:
        shutil.rmtree(scratch)
    return f"refused {' '.join(sorted(set(examination.refusals)))}" if examination.refusals else "ok"


def main() -> None:
    folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    truth = specimen.truth(folder)
    for seed in range(first, last):
        signal.alarm(HANG)
        print(look(folder, folder / f"image-{os.getpid()}", seed, truth), flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main()
