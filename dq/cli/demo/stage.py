"""One performance of the demo: the run and the killer, then the judge and the plain computation."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dq.cli.demo.bodylog import Tail, told
from dq.cli.demo.chaos import Chaos, Kill
from dq.cli.demo.measure import CHUNK, Survey, digest
from dq.cli.demo.plan import KINDS, Strike
from dq.cli.progress import Meter
from dq.client.engine import Engine
from dq.client.run import Run
from dq.errors import DqError

_HERE = Path(__file__).parent
_REFRESH = 0.1  # seconds between two looks at the progress
_STALL = 120.0  # seconds without any body coming to its end after which the demo gives up
_CENSUS = 0.5  # seconds between two questions who is at work
_ENOUGH = 1_000_000  # bytes of source that are some seconds of work
_A_KILL = 400_000  # more bytes of source for each kill, so that all of them find somebody at work
_PASSES = 2000  # the most, for files that are all but empty


@dataclass(frozen=True)
class Play:
    """What is performed, and where."""

    folder: str
    files: list[str]
    db: str
    workers: int
    plan: list[Strike]
    seed: int
    run: str = field(default_factory=lambda: time.strftime("demo-%Y%m%d-%H%M%S"))

    @property
    def log(self) -> str:
        return f"{self.stem}.log"

    @property
    def stem(self) -> str:
        """The path of the report without its suffix: beside the database, named as the run."""
        return os.path.join(os.path.dirname(self.db), self.run)

    @property
    def passes(self) -> int:
        """How many times each file is measured: more than once where the folder is too small to be some work."""
        size = 0
        for path in self.files:
            with contextlib.suppress(OSError):
                size += os.path.getsize(os.path.join(self.folder, path))
        wanted = _ENOUGH + _A_KILL * len(self.plan)
        return max(1, min(_PASSES, wanted // max(1, size)))

    @property
    def steps(self) -> int:
        """List, one for each file, the merges, their merge, and the report."""
        return 1 + len(self.files) + -(-len(self.files) // CHUNK) + 2


@dataclass
class Outcome:
    """What came of it. `faults` is empty where everything held."""

    files: int
    steps: int
    kills: dict[str, int]
    in_body: int
    retried: int
    lost: int
    repeated: int
    identical: bool
    seconds: float
    faults: list[str]


def perform(play: Play, meter: Meter) -> Outcome:
    """Runs the demo's workflow to its end, whatever is killed, and judges it.

    Raises:
        DqError: the engine gave up, or nothing moved for two minutes.
    """
    began = time.monotonic()
    survey, fault = _act(play, meter)
    seconds = time.monotonic() - began
    meter.say("the engine has stopped; judging the file against the log ...")
    verdict = _script("judge.py", play.db, play.run, play.log)
    meter.say("computing the same without dq ...")
    plain = _script("plain.py", play.folder, str(play.workers))
    identical = plain["digest"] == digest(survey) == verdict["digest"] and not plain["dq"]
    outcome = Outcome(
        files=len(play.files),
        steps=verdict["steps"],
        kills={kind: verdict["kills"].get(kind, 0) for kind in KINDS},
        in_body=verdict["in_body"],
        retried=verdict["retried"],
        lost=verdict["lost"],
        repeated=verdict["repeated"],
        identical=identical,
        seconds=round(seconds, 2),
        faults=[*fault, *verdict["problems"]],
    )
    outcome.faults += find_faults(outcome, play.plan)
    return outcome


def find_faults(outcome: Outcome, plan: list[Strike]) -> list[str]:
    """What else is not as promised: another result than the plain one, kills that did not happen."""
    faults: list[str] = []
    if not outcome.identical:
        faults.append("the result differs from that of the plain computation")
    for kind in KINDS:
        wanted = sum(strike.kind == kind for strike in plan)
        if outcome.kills[kind] < wanted:
            faults.append(
                f"the run was over after {outcome.kills[kind]} of {wanted} kills of kind {kind}; "
                "take a larger folder, or fewer --kills"
            )
    if 2 * outcome.in_body < outcome.kills["worker"]:
        faults.append(
            f"only {outcome.in_body} of {outcome.kills['worker']} killed workers were in the middle of a body"
        )
    return faults


def _act(play: Play, meter: Meter) -> tuple[Survey, list[str]]:
    """The run and the killer side by side. Returns the run's result, and what went wrong with the killer."""
    from dq.cli.demo.flow import survey

    with Engine(play.db, workers=play.workers) as engine:
        run = engine.start(survey, play.folder, play.passes, play.stem, play.log, id=play.run)

        def census() -> list[tuple[str, int]]:
            return [(member.kind, member.pid) for member in engine.census().rows]

        def show(kill: Kill) -> None:
            place = ", in the middle of a body" if kill.in_body else ""
            meter.say(f"  kill -9 {kill.pid} ({kill.kind}{place})")

        chaos = Chaos(census, play.log, play.plan, steps=len(play.files), seed=play.seed, on_kill=show)
        chaos.start()
        try:
            result = _watch(engine, run, play, meter, chaos)
        finally:
            chaos.end()
    fault = [f"the killer failed: {type(chaos.fault).__name__}: {chaos.fault}"] if chaos.fault else []
    return told(play.log, "run", result), fault


def _watch(engine: Engine, run: Run[Survey], play: Play, meter: Meter, chaos: Chaos) -> Survey:
    """Shows the progress until the run ends; returns its result."""
    tail = Tail(play.log)
    moved = asked = time.monotonic()
    before, workers = -1, play.workers
    while True:
        with contextlib.suppress(TimeoutError):
            result = run.result(timeout=_REFRESH)
            meter.update(play.steps, play.steps, f"{len(chaos.kills)} kills")
            return result
        now, done = time.monotonic(), len(tail.read().done)
        if now - asked > _CENSUS:
            asked, workers = now, sum(member.kind == "worker" for member in engine.census().rows)
        meter.update(done, play.steps, f"{workers} workers, {len(chaos.kills)} of {len(play.plan)} kills")
        if done != before:
            before, moved = done, now
        elif now - moved > _STALL:
            raise DqError(f"nothing has moved for {_STALL:.0f} s; see {play.log} and `dq show {play.run}`")


def _script(name: str, *arguments: str) -> dict[str, Any]:
    """Runs a script of this folder in an interpreter that knows nothing of dq, and reads what it prints."""
    command = [sys.executable, "-I", "-W", "ignore", str(_HERE / name), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise DqError(f"{name} ended with {done.returncode} and without an answer") from error
    return told
