"""One performance: clients that start runs again and again, the killer beside them, and the drain at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from dq.cli.chaos import plan, steps
from dq.cli.chaos.clients import Clients, Play, Tally
from dq.cli.chaos.crowd import Crowd
from dq.cli.chaos.history import note
from dq.cli.chaos.killer import Killer
from dq.client.engine import Engine

HANG = 0.5  # seconds without a sign of life after which a worker is replaced
_STALL = 60.0  # seconds without the end of any run, with nobody killed any more, after which the rest is given up
_LATER = 30.0  # seconds that it goes on for a kind of fault that there was none of
_GONE = 1.0  # seconds in which every process must have ended when the engine has stopped


def perform(play: Play, show: Callable[[Tally, float], None]) -> Tally:
    """Performs it, up to the end of the engine. `show` is called now and then with how far it is, and seconds left.

    Raises:
        DqError: The engine can't be opened.
    """
    tally = Tally()
    crowd = Crowd(play.db)
    with contextlib.closing(crowd):
        executors = {} if play.workflow is not None else {steps.IO: "thread:4"}
        with Engine(play.db, workers=play.workers, executors=executors, hang=HANG) as engine:
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
        for _ in _moments(until + _LATER):
            show(tally, until - time.monotonic())
            if not clients.busy or (time.monotonic() > until and killer.has_met(play.kinds)):
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
