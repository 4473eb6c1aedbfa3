"""An engine under attack: programs are played on it while a killer follows a plan, and at the end everything is judged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dq
from dq.cli.chaos import flows, plan, programs, steps
from dq.cli.chaos.crowd import Crowd
from dq.cli.chaos.history import note
from dq.cli.chaos.killer import Killer
from dq.cli.chaos.programs import Program
from tests.judge.checker import judge
from tests.waiting import wait_until

HANG = 0.5  # seconds without a sign of life after which a worker is replaced
LONG = 100.0  # seconds that a batch of programs may take


class Arena:
    """Where programs are played."""

    def __init__(self, engine: dq.Engine, log: str) -> None:
        self._engine = engine
        self._log = log
        self._numbers = itertools.count()
        self.played = 0

    def play(self, batch: Sequence[tuple[str, Program]]) -> None:
        """Plays programs at once. Each must come to what the oracle says."""
        known: list[tuple[dq.Run[Any], programs.Expected]] = []
        for how, program in batch:
            id = f"r{next(self._numbers)}"
            expected = programs.expect(id, program)
            told = {"must": expected.must, "fails": expected.fails, "may": expected.may, "rows": expected.rows}
            note(self._log, "start", run=id, expect=expected.value, how=how, program=program, **told)
            run = self._engine.start(flows.PLAYERS[how], self._log, id, program, 1, id=id)
            note(self._log, "started", run=id)
            for name, payload in expected.signals:
                self._engine.signal(id, name, payload)
                note(self._log, "signalled", run=id, name=name)
            known.append((run, expected))
        for (run, expected), played in zip(known, batch, strict=True):
            assert run.result(LONG) == expected.value, (run.id, played)
            self.played += 1


@contextmanager
def arena(
    folder: Path, seed: int, rate: float, kinds: Sequence[str] = plan.KINDS, faults: int | None = None
) -> Iterator[Arena]:
    """An engine under attack for the time of a block; the judge's findings fail the test at its end.

    Args:
        folder: Where it all lies.
        seed: What the faults are drawn from.
        rate: Faults a second.
        kinds: Which faults.
        faults: How many there are; None for as long as it lasts.
    """
    db, log = folder / "f.db", str(folder / "history")
    with closing(Crowd(str(db))) as crowd:
        with dq.Engine(db, workers=2, executors={steps.IO: "thread:4"}, hang=HANG) as engine:
            engine.execute(steps.TABLE)
            killer = Killer(crowd, log, itertools.islice(plan.draw(seed, rate, kinds), faults), HANG, None)
            killer.start()
            made = Arena(engine, log)
            try:
                yield made
            finally:
                killer.end()
            assert killer.fault is None
            wait_until(lambda: not engine.read("SELECT 1 FROM dq_steps WHERE state IN ('pending', 'claimed') LIMIT 1"))
        note(log, "drained", left=crowd.left())
    assert judge(db, log) == [], f"{made.played} programs, plan {seed}, {dict(killer.kills)}"
