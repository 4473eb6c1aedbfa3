"""Finds dead and hung members, and frees what they held.

Death is told by the kernel (pidfd); then the dead one's socket is drained, it is reaped, its group is killed, and its
slot says which of its steps it had begun: only those are charged a crash. A hung member has a heart that does not beat
and either is stopped or makes no progress; it is killed first, and what it held is freed when it is dead.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from dq.crew.evidence import Death
from dq.crew.members import HOST, Member
from dq.executor.slots import BEGUN, UNSENT, SlotReader

if TYPE_CHECKING:
    from dq.crew.claims import Batch, Claim, Row
    from dq.crew.kernel import Kernel
    from dq.model.clock import Clock

TICK = 1.0  # seconds between two looks at the beats
STARVED = 2.0  # seconds that a process may have to wait for a processor
WAITING, WAITING_SHARE = 0.05, 0.02  # seconds of CPU, and its part of the time, that are no progress yet
NOT_ITS_FAULT = ("handed back", "cancelled", "timed out")  # whoever is killed for such a reason is not charged
GRACE = 3.0  # a gap this long between two ticks means that the supervisor itself was stopped


class Verdict(NamedTuple):
    """What becomes of one row that a dead member held."""

    row: Row
    batch: Batch | None
    claim: Claim
    outcome: str  # "crashed", "lost", or "" for a step that was not begun
    charged: bool


def autopsy(member: Member, slots: SlotReader) -> list[Verdict]:
    """What the member had begun, had finished but not sent, and had not begun. Pure: changes nothing.

    A member that was killed on purpose, or handed back, is not charged.
    """
    marks = {(entry.epoch, entry.id): entry.mark for entry in slots.entries(member.slot)}
    verdicts: list[Verdict] = []
    for claim in member.claims.values():
        for row in claim.open.values():
            mark = marks.get((claim.epoch, row[0]))
            outcome = {BEGUN: "crashed", UNSENT: "lost"}.get(mark or 0, "")
            if outcome == "crashed" and member.why.startswith(NOT_ITS_FAULT):
                outcome = "lost"
            verdicts.append(Verdict(row, claim.batch, claim, outcome, outcome == "crashed"))
    return verdicts


def running_run(member: Member, slots: SlotReader) -> int:
    """The run whose code a dead host was running, 0 if it was resting."""
    if member.kind != HOST:
        return 0
    return next((entry.id for entry in slots.entries(member.slot) if entry.mark == BEGUN), 0)


def reap(member: Member, kernel: Kernel) -> Death | None:
    """How a dead member ended; what is left of its group is killed. None: it is not dead."""
    ended = kernel.reap(member.pid, member.pidfd)
    return Death(*ended) if ended is not None else None


def reap_strangers(known: set[int]) -> None:
    """Takes the status of orphans that the kernel has handed to this process: what steps have left behind."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in known:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, os.WNOHANG)


class Watch:
    """Looks at the members' beats."""

    def __init__(self, slots: SlotReader, hang: float, clock: Clock, kernel: Kernel) -> None:
        self._slots = slots
        self._hang = hang
        self._clock = clock
        self._kernel = kernel
        self._last = clock.monotonic()
        self.tick = min(TICK, hang / 4)

    def hung(self, members: list[Member]) -> list[tuple[Member, str]]:
        """Members that do not work any more, with the reason."""
        now = self._clock.monotonic()
        stopped_myself = now - self._last > self.tick + GRACE
        self._last = now
        found: list[tuple[Member, str]] = []
        for member in members:
            beat = self._slots.beat(member.slot)
            if beat != member.beat or stopped_myself or not member.beat_at:
                member.beat, member.beat_at, member.cpu = beat, now, -1.0
            elif now - member.beat_at > self._hang and (why := self._look(member)):
                found.append((member, why))
        return found

    def _look(self, member: Member) -> str:
        """The second witness: a process that does not beat but burns CPU holds the GIL, and is busy."""
        look = self._kernel.look(member.pid)
        if look is None:
            return ""
        if look.stopped:
            return f"stopped for more than {self._hang:g} s"
        spent, now = look.spent, self._clock.monotonic()
        # Threads that wait for the interpreter's lock look for it again and again, which takes a little time too.
        waiting = max(WAITING, WAITING_SHARE * (now - member.cpu_at))
        if member.cpu < 0 or spent - member.cpu > waiting:
            member.cpu, member.cpu_at = spent, now
        if now - member.cpu_at <= max(self._hang, STARVED):
            return ""  # on a machine that is busy, no progress for a moment says nothing
        return f"no heartbeat and no progress for more than {self._hang:g} s"
