"""Clients: they start runs of a workflow, or of random programs, one after the other, and say what they were told."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from dq.cli.chaos import flows, programs, steps
from dq.cli.chaos.history import note
from dq.client.engine import Engine
from dq.client.run import Run
from dq.errors import Cancelled, DqError

_BASELINE = 300.0  # seconds that a user's workflow may take while nothing is killed


@dataclass(frozen=True)
class Play:
    """What is performed, and where.

    Attributes:
        workflow: The user's; None for random programs.
        args: Its arguments.
        db: The database.
        log: The history.
        seed: What programs and faults are drawn from.
        seconds: How long there are faults.
        rate: Faults a second.
        kinds: Which.
        workers: Worker processes.
        at_once: How many runs are under way at once.
    """

    workflow: Any
    args: list[Any]
    db: str
    log: str
    seed: int
    seconds: float
    rate: float
    kinds: tuple[str, ...]
    workers: int
    at_once: int


@dataclass
class Tally:
    """How far it is, for whoever watches. Written by many threads; a number that is a moment old does no harm."""

    started: int = 0
    ended: int = 0
    wrong: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    left: list[tuple[str, int]] = field(default_factory=list)  # processes that have outlived their engine


class Clients:
    """Threads that start runs of the same engine, one after the other, until they are told to stop."""

    def __init__(self, engine: Engine, play: Play, tally: Tally) -> None:
        self._engine = engine
        self._play = play
        self._tally = tally
        self._numbers = itertools.count()
        self._last = threading.Event()  # no more runs are begun
        self._prefix = time.strftime("chaos-%H%M%S-")
        self._known: Any = None  # what a user's workflow has come to without any fault
        self._threads = [threading.Thread(target=self._go_on, daemon=True) for _ in range(play.at_once)]

    def rehearse(self) -> None:
        """Runs a user's workflow once, while nothing is killed. Raises DqError where it fails even so."""
        if self._play.workflow is not None:
            run = self._start(self._play.workflow, self._play.args, self._prefix + "first")
            self._known = _outcome(run, _BASELINE)
            if not self._known[0]:
                raise DqError(
                    f"the workflow fails even when nobody is killed: {self._known[1]!r}. See `dq show {run.id} "
                    f"--db {self._play.db}`, mend it, and start `dq chaos` again."
                )
            self._tell(run, self._known, right=True)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        self._last.set()

    @property
    def busy(self) -> int:
        return sum(thread.is_alive() for thread in self._threads)

    def _go_on(self) -> None:
        while not self._last.is_set():
            number = next(self._numbers)
            try:
                self._one(f"{self._prefix}{number}", number)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is a finding
                self._tally.troubles.append(f"a client's call failed: {type(error).__name__}: {error}")
                return

    def _one(self, id: str, number: int) -> None:
        self._tally.started += 1
        if self._play.workflow is not None:
            run = self._start(self._play.workflow, self._play.args, id)
            outcome = _outcome(run, None)
            self._tell(run, outcome, right=_same(outcome, self._known))
        else:
            rng = random.Random(f"{self._play.seed}/{number}")
            errand = rng.choices([self._program, self._alone, self._cancelled], [8, 1, 1])[0]
            errand(id, rng)
        self._tally.ended += 1

    def _start(self, workflow: Any, args: list[Any], id: str, **known: Any) -> Run[Any]:
        note(self._play.log, "start", run=id, **known)
        run = self._engine.start(workflow, *args, id=id)
        note(self._play.log, "started", run=id)
        return run

    def _program(self, id: str, rng: random.Random) -> None:
        """A random program, perhaps started twice, with the signals that it waits for."""
        log = self._play.log
        how, program = programs.generate(rng)
        expected = programs.expect(id, program)
        known = {"expect": expected.value, "must": expected.must, "fails": expected.fails, "may": expected.may,
                 "rows": expected.rows, "how": how, "program": program}  # fmt: skip
        args = [log, id, program, 1]
        run = self._start(flows.PLAYERS[how], args, id, **known)
        if rng.random() < 0.2:
            run = self._start(flows.PLAYERS[how], args, id, **known)
        for name, payload in expected.signals:
            self._engine.signal(id, name, payload)
            note(log, "signalled", run=id, name=name)
        outcome = _outcome(run, None)
        self._tell(run, outcome, right=_same(outcome, (True, expected.value)))

    def _alone(self, id: str, rng: random.Random) -> None:
        """Steps that no run asks for."""
        count = rng.choice([1, 5, 100])
        must = [steps.label(id, number) for number in range(count)]
        note(self._play.log, "alone", work=id, must=must)
        futures = [self._engine.submit(steps.item, self._play.log, id, 1, number) for number in range(count)]
        self._engine.flush()
        note(self._play.log, "flushed", work=id)
        found = [future.result() for future in futures]
        known = [programs.mix(1, id, number) for number in range(count)]
        note(self._play.log, "heard", work=id, right=found == known)
        if found != known:
            self._tally.wrong += 1

    def _cancelled(self, id: str, rng: random.Random) -> None:
        """A run that waits for ever, and is cancelled; what it has registered undoes it."""
        run = self._start(flows.waiting, [self._play.log, id], id, must=[f"{id}u"])
        time.sleep(rng.random() * 0.2)
        run.cancel()
        note(self._play.log, "cancelled", run=id)
        outcome = _outcome(run, None)
        self._tell(run, outcome, right=isinstance(outcome[1], Cancelled))

    def _tell(self, run: Run[Any], outcome: tuple[bool, Any], *, right: bool) -> None:
        """Notes that a result has arrived where it was wanted. From then on it must never be lost."""
        ended = run._ended
        digest = hashlib.sha256(ended.payload if ended is not None else b"").hexdigest()
        text = repr(outcome[1])[:200]
        note(self._play.log, "told", run=run.id, ok=outcome[0], digest=digest, right=right, value=text)
        if not right:
            self._tally.wrong += 1


def _outcome(run: Run[Any], timeout: float | None) -> tuple[bool, Any]:
    """(True, the result), or (False, the exception)."""
    try:
        return True, run.result(timeout)
    except Exception as error:  # noqa: BLE001 -- a workflow may raise anything, and here it is data
        return False, error


def _same(one: tuple[bool, Any], other: tuple[bool, Any]) -> bool:
    if one[0] != other[0]:
        return False
    if not one[0]:
        return (type(one[1]), str(one[1])) == (type(other[1]), str(other[1]))
    try:
        return bool(one[1] == other[1]) or pickle.dumps(one[1], 5) == pickle.dumps(other[1], 5)
    except Exception:  # noqa: BLE001 -- arrays compare item by item
        return pickle.dumps(one[1], 5) == pickle.dumps(other[1], 5)
