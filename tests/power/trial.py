"""Lets a script run on a disk that fails, and judges what is left of its files, and what a power cut would leave."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tests.power.account import Account
from tests.power.disk import EIO, FULL, SHORT, SYNC, Disk, Fault
from tests.power.keeper import Gone
from tests.power.platter import Platter
from tests.power.script import Script
from tests.power.sweep import Sweep
from tests.power.verdict import Promise, held_by

PASSED = 0.25  # share of the faults after which the power is cut at moments on the way too

Make = Callable[[int], Fault]
Deed = Callable[[Script], object]

KINDS: dict[str, Make] = {
    "a call": lambda at: Fault(EIO, at),
    "a call or a read": lambda at: Fault(EIO, at, reads=True),
    "all calls from one on": lambda at: Fault(EIO, at, lasting=True),
    "a call for want of room": lambda at: Fault(FULL, at),
    "all from one on for want of room": lambda at: Fault(FULL, at, lasting=True),
    "half a write": lambda at: Fault(SHORT, at),
    "a sync": lambda at: Fault(SYNC, at),
    "all syncs from one on, for a while": lambda at: Fault(SYNC, at, lasting=True),
}


def each_call(
    account: Account,
    place: Path,
    fault: Make,
    stride: int,
    deed: Deed,
    *,
    seed: int = 0,
    before: Deed,
    old: Path | None = None,
) -> None:
    """Does the deed again and again, each time with a later call that fails, until none is left to fail."""
    for at in count(0, stride):
        made = fault(at)
        findings = fails(place, made, seed, before, deed, old)
        if not made.fired or not account.tried(1, findings, f"seed {seed}, call {at} ({made.failed.strip()})"):
            break


def fails(place: Path, fault: Fault, seed: int, before: Deed, deed: Deed, old: Path | None) -> list[str]:
    """Does `before` on a disk that is well, and `deed` on one that fails; returns what is wrong with what is left.

    `old`: a file that is there at first.
    """
    chance = random.Random(seed)
    folder = place / "failing"
    folder.mkdir()
    held = {} if old is None else held_by(Path(shutil.copy(old, folder / "f.db")))
    with Disk(folder) as disk:
        script = Script(disk, chance, Promise(dict(held)))
        script.asked = held
        before(script)
        disk.fault = fault
        with contextlib.suppress(Gone):
            deed(script)
        disk.fault = None
        script.end()
    shutil.rmtree(folder)
    return _judged(place, disk, script, chance) if fault.fired else []


def _judged(place: Path, disk: Disk, script: Script, chance: random.Random) -> list[str]:
    judge = Sweep(disk, script.promises, script.asked, script.gone, chance, place)
    often = chance.random() < PASSED
    findings = judge.run(1, 0.01).findings if often else []
    platter = Platter(disk)
    for event in disk.events:
        platter.apply(event)
    promise = script.promises[-1]
    for image in (platter.cached(), *list(platter.cuts(chance, 1))[:3]):
        findings += [f"at the end: {what}" for what in judge.examine(image, promise)]
    return findings
