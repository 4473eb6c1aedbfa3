"""One performance: clients that start runs again and again, the killer beside them, and the drain at the end."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dq.cli.chaos import flows, plan, programs, steps
from dq.cli.chaos.crowd import Crowd
from dq.cli.chaos.history import note
from dq.cli.chaos.killer import Killer
from dq.client.engine import Engine
from dq.client.run import Run

HANG = 0.5  # seconds without a sign of life after which a worker is replaced
_STALL = 60.0  # seconds without the end of any run, with nobody killed any more, after which the rest is given up
_BASELINE = 300.0  # seconds that a user's workflow may take while nothing is killed
_GONE = 1.0  # seconds in which every process must have ended when the engine has stopped


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
        """Runs a user's workflow once, while nothing is killed."""
        if self._play.workflow is not None:
            run = self._engine.start(self._play.workflow, *self._play.args, id=self._prefix + "first")
            note(self._play.log, "start", run=run.id)
            self._known = _outcome(run, _BASELINE)
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
        log = self._play.log
        self._tally.started += 1
        if self._play.workflow is not None:
            note(log, "start", run=id)
            run = self._engine.start(self._play.workflow, *self._play.args, id=id)
            note(log, "started", run=id)
            known = self._known
        else:
            how, program = programs.generate(random.Random(f"{self._play.seed}/{number}"))
            expected = programs.expect(id, program)
            known = (True, expected.value)
            note(
                log, "start", run=id, program=program, how=how, expect=expected.value, must=expected.must,
                fails=expected.fails, may=expected.may, rows=expected.rows,
            )  # fmt: skip
            run = self._engine.start(flows.PLAYERS[how], log, id, program, 1, id=id)
            note(log, "started", run=id)
            for name, payload in expected.signals:
                self._engine.signal(id, name, payload)
                note(log, "signalled", run=id, name=name)
        outcome = _outcome(run, None)
        self._tell(run, outcome, right=_same(outcome, known))
        self._tally.ended += 1

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


def perform(play: Play, show: Callable[[Tally, float], None]) -> Tally:
    """Performs it, up to the end of the engine. `show` is called now and then with how far it is, and seconds left.

    Raises:
        DqError: The engine can't be opened.
    """
    tally = Tally()
    crowd = Crowd(play.db)
    with contextlib.closing(crowd):
        with Engine(play.db, workers=play.workers, hang=HANG) as engine:
            _act(engine, play, tally, crowd, show)
        tally.left = _left(crowd)
        note(play.log, "drained", left=tally.left)
    return tally


def _act(engine: Engine, play: Play, tally: Tally, crowd: Crowd, show: Callable[[Tally, float], None]) -> None:
    if play.workflow is None:
        engine.execute(steps.TABLE)
    clients = Clients(engine, play, tally)
    clients.rehearse()
    budget = None if play.workflow is None else 1
    faults = plan.draw(play.seed, play.rate, play.kinds) if play.kinds else iter(())
    killer = Killer(crowd, play.log, faults, HANG, budget)
    tally.kills = killer.kills
    until = time.monotonic() + play.seconds
    clients.start()
    killer.start()
    try:
        for _ in _moments(until):
            show(tally, until - time.monotonic())
            if not clients.busy:
                break
    finally:
        clients.finish()
        killer.end()
    if killer.fault is not None:
        tally.troubles.append(f"the killer failed: {type(killer.fault).__name__}: {killer.fault}")
    _drain(clients, tally, show)


def _drain(clients: Clients, tally: Tally, show: Callable[[Tally, float], None]) -> None:
    """Waits for the runs that are under way."""
    ended, moved = tally.ended, time.monotonic()
    for _ in _moments(float("inf")):
        show(tally, 0.0)
        if not clients.busy:
            return
        if tally.ended != ended:
            ended, moved = tally.ended, time.monotonic()
        elif time.monotonic() - moved > _STALL:
            tally.troubles.append(f"{clients.busy} runs have not ended within {_STALL:.0f} s after the last fault")
            return


def _moments(until: float) -> Iterator[None]:
    while time.monotonic() < until:
        time.sleep(0.05)
        yield


def _left(crowd: Crowd) -> list[tuple[str, int]]:
    """Processes of the crew that have outlived their engine."""
    until = time.monotonic() + _GONE
    while (left := crowd.left()) and time.monotonic() < until:
        time.sleep(0.01)
    return left
