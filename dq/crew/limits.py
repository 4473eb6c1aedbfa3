"""What a process may take: time for one attempt, and steps or memory for a worker. Whoever takes more is ended here.

A worker writes into its slot when a body with a time limit begins, so that the time that a step waited in its hands
does not count, and so that a body that never lets the interpreter go is seen like any other.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from dq.crew.cancels import Doom
from dq.crew.members import WORKER
from dq.executor.contract import Capability
from dq.executor.slots import BEGUN

if TYPE_CHECKING:
    from dq.crew.claims import Claim
    from dq.crew.members import Member
    from dq.crew.supervisor import Supervisor

DUMP_WAIT = 0.1  # seconds that a member has to leave its stack before it is killed
SOON = 0.01  # seconds until another look at a body that begins just now
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Limits:
    """Looks at members when a limit may be reached, and ends those that are above one."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._looks: dict[Member, float] = {}  # the next one at each member; seconds of the monotonic clock
        options = supervisor.options
        self.recycles = bool(options.recycle_steps or options.recycle_rss)

    def watch(self, member: Member, timeout: int) -> None:
        """A member has been given steps, each of which may take so many microseconds."""
        self._look_at(member, self._sup.clock.monotonic() + timeout / 1_000_000)

    def _look_at(self, member: Member, due: float) -> None:
        if due < self._looks.get(member, float("inf")):
            self._looks[member] = due
            self._sup.timers.at(due, lambda: self._look(member, due))

    def _look(self, member: Member, due: float) -> None:
        if self._looks.get(member) != due:
            return  # an earlier look has taken the place of this one
        del self._looks[member]
        timeouts = self._timeouts(member)
        if not timeouts or member not in self._sup.staff.members or member.why:
            return
        now = self._sup.clock.monotonic()
        begun = self._begun(member)
        if begun is None:
            step, _ = self._sup.slots.timed(member.slot)
            waiting = any(entry.mark == BEGUN for entry in self._sup.slots.entries(member.slot))
            self._look_at(member, now + (SOON if waiting and not step else min(timeouts.values())))
            return
        claim, step, since = begun
        end = since + timeouts[step]
        if now < end:
            self._look_at(member, end)
        else:
            self.ask_for_stack(member)
            self._sup.timers.at(now + DUMP_WAIT, lambda: self._end(member, claim, step, since))

    def _timeouts(self, member: Member) -> dict[int, float]:
        """Seconds for each of the steps that a member holds, where they have a limit."""
        functions = self._sup.ledger.functions
        rows = [row for claim in member.claims.values() for row in claim.open.values()]
        return {row[0]: limit / 1_000_000 for row in rows if (limit := functions[row[2]].options.timeout)}

    def _begun(self, member: Member) -> tuple[Claim, int, float] | None:
        """The body with a limit that a member is in: its claim, its step, and when it began (monotonic seconds)."""
        step, since = self._sup.slots.timed(member.slot)
        for entry in self._sup.slots.entries(member.slot) if step else ():
            claim = member.claims.get(entry.epoch)
            if entry.mark == BEGUN and entry.id == step and claim is not None and step in claim.open:
                return claim, step, since / 1e9
        return None

    def _end(self, member: Member, claim: Claim, step: int, since: float) -> None:
        """Kills a member on account of a step, if it is still at it."""
        if member not in self._sup.staff.members or member.why:
            return
        if self._begun(member) != (claim, step, since):
            self._look_at(member, self._sup.clock.monotonic() + SOON)
            return
        timeout = self._timeouts(member)[step]
        began = self._sup.clock.now() - int((self._sup.clock.monotonic() - since) * 1_000_000)
        why = f"it took longer than its limit of {timeout:g} s"
        self._sup.results.doomed.setdefault(step, Doom(member, "timed_out", why, began))
        self._sup.staff.kill(member, "timed out")

    def ask_for_stack(self, member: Member) -> None:
        """Has a member leave its stack, which even one does that never lets the interpreter go."""
        self._sup.kernel.send(member.pidfd, signal.SIGUSR1)

    def end_hung(self, member: Member, why: str) -> None:
        """Ends a member that does not work any more."""
        member.why = why
        self.ask_for_stack(member)
        self._sup.timers.at(self._sup.clock.monotonic() + DUMP_WAIT, lambda: self._sup.staff.kill(member, why))

    def recycle(self, member: Member) -> None:
        """Lets a worker process leave that has done enough, or has grown too large. Another takes its place."""
        options, lane = self._sup.options, member.lane
        if member.stopping or member.kind != WORKER or lane is None or Capability.KILL not in lane.pool.capabilities:
            return
        worn = options.recycle_steps and member.finished >= options.recycle_steps
        if worn or (options.recycle_rss and _resident(member.pid) > options.recycle_rss):
            self._sup.staff.dismiss(member)


def _resident(pid: int) -> int:
    """Bytes that a process has in memory; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
