"""What is on record as unfinished, and does not go on."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from dq.cli.doctor.finding import ERROR, NOTE, WARNING, Finding
from dq.cli.doctor.owner import Owner
from dq.crew.delays import FAR
from dq.crew.ownership import started
from dq.executor.options import SUPERVISOR
from dq.store.archive import Archive
from dq.store.reader import Reader

HUNG = 60_000_000  # microseconds; a claim of a dead process is found and freed much sooner
QUIET = 600_000_000  # microseconds
SHOWN = 5  # examples in a finding
_OWN = ("", "cpu", SUPERVISOR)


def check(db: str, reader: Reader, owner: Owner, now: int) -> Iterator[Finding]:
    archive = reader.archive()
    yield from _claims(reader, archive, owner, now)
    yield from _runs(db, archive, owner, now)
    yield from _functions(db, archive, owner)


def _claims(reader: Reader, archive: Archive, owner: Owner, now: int) -> Iterator[Finding]:
    boot, times = reader.engine().boot_epoch, archive.claim_times()
    strange: list[int] = []
    orphaned: list[int] = []
    left = 0
    for claim in archive.open_claims():
        ids = [step for step, _ in claim.steps]
        if len(archive.results(ids)) == len(ids):
            continue  # it is over, and is deleted together with the next one
        left += not owner.pid
        if owner.pid and claim.epoch >> 40 != boot:
            strange.append(claim.epoch)
        elif owner.pid and not started(claim.pid) and now - times.get(claim.epoch, now) > HUNG:
            orphaned.append(claim.pid)
    if strange or orphaned:
        what = f"{len(strange)} open claims are of an earlier supervisor" if strange else ""
        what += f"{', ' if strange and orphaned else ''}"
        what += f"{len(orphaned)} are of processes that are gone, such as {orphaned[0]}" if orphaned else ""
        yield Finding(
            ERROR, "claims", what, "their steps wait for somebody who will never answer",
            f"`kill {owner.pid}` (it drains first), then `dq up`: a new supervisor frees them",
        )  # fmt: skip
    if left:
        yield Finding(
            NOTE, "claims", f"{left} claims are left of a supervisor that was killed", "their steps begin again",
            "`dq up`: the next supervisor frees them",
        )  # fmt: skip


def _runs(db: str, archive: Archive, owner: Owner, now: int) -> Iterator[Finding]:
    blocked = archive.blocked_runs()
    if blocked:
        name, reason = blocked[0]
        yield Finding(
            WARNING, "blocked", f"{len(blocked)} runs are blocked, such as {name}: {reason.splitlines()[0] if reason else ''}",
            "their record does not fit the code; nothing of them is lost",
            f"dq show {shlex.quote(name)} --db {db} tells the difference; with the right code, dq resume {shlex.quote(name)}",
        )  # fmt: skip
    quiet = archive.quiet_runs(now - QUIET) if owner.pid else []
    if quiet:
        name, heard = quiet[0]
        yield Finding(
            WARNING, "runs", f"{len(quiet)} runs have no open step and are quiet, {name} for {(now - heard) / 6e7:.0f} minutes",
            "their code computes for as long as that, or no host has them: a script that can't be imported, say",
            f"look at what the supervisor (pid {owner.pid}) says; dq show {shlex.quote(name)} --db {db}",
        )  # fmt: skip
    parked = archive.parked_steps(FAR // 2)
    if parked:
        examples = ", ".join(f"{step} ({name})" for step, name in parked[:SHOWN])
        yield Finding(
            WARNING, "parked", f"{len(parked)} steps are parked since their worker died in them: {examples}",
            "they wait until somebody says that they may begin again", f"dq retry {parked[0][0]} --db {db}",
        )  # fmt: skip


def _functions(db: str, archive: Archive, owner: Owner) -> Iterator[Finding]:
    """Unfinished work whose executor or whose script is not there."""
    waiting = dict(archive.unfinished_workflows())
    for _run, function, _first, _last, count in archive.open_flow_functions():
        waiting[function] = waiting.get(function, 0) + count
    for first, last in archive.open_batches():
        for function, _, _, count in archive.open_functions(first, last):
            waiting[function] = waiting.get(function, 0) + count
    functions = {row.id: row for row in archive.functions() if row.id in waiting}
    contexts = {row.id: row for row in archive.contexts()}
    wanted = sorted({row.executor for row in functions.values()} - {*_OWN, *owner.executors})
    if wanted:
        options = " ".join(f"--executor {name}=..." for name in wanted)
        yield Finding(
            WARNING if owner.pid else NOTE, "executors", f"steps wait for the executors {', '.join(wanted)}",
            "a supervisor without them fails these steps", f"dq up --db {db} {options}",
        )  # fmt: skip
    used = {contexts[row.context].script for row in functions.values() if row.context in contexts and not row.code}
    gone = sorted(script for script in used if script and not os.path.exists(script))
    if gone:
        yield Finding(
            ERROR, "scripts", f"unfinished work needs {', '.join(gone[:SHOWN])}, which is not there",
            "its functions can't be imported, so it can't go on", "bring the script back to where it was",
        )  # fmt: skip
    if waiting and not owner.pid:
        yield Finding(
            NOTE, "owner", f"{sum(waiting.values())} runs and steps are unfinished, and nobody works on them",
            "they go on when somebody does", f"dq up --db {db}",
        )  # fmt: skip
