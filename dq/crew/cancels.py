"""How work ends before its time: a run that is cancelled, a step that its run does not want any more.

A run hears of a cancel in the order of its other completions, and its host then says which of its steps are to end.
What waits is taken out of its queue. A body that runs is killed with its process, and its step ends when that is dead:
never is a step on record as ended while its body goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dq import errors
from dq.crew.results import failure
from dq.executor.contract import Capability
from dq.model.states import CANCELLED, RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dq.crew.claims import Claim, Row
    from dq.crew.ledger import Run
    from dq.crew.members import Member
    from dq.crew.supervisor import Supervisor

TIMED_OUT = "it has run out of time"


class Doom(NamedTuple):
    """What becomes of a step whose process is being killed on its account."""

    member: Member
    outcome: str  # of the attempt
    why: str


class Cancels:
    """Cancels runs and steps."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._committer = supervisor.committer
        self._ledger = supervisor.ledger

    def run(self, run: Run, cause: str, *, key: int = 0, now: bool = False) -> str:
        """Asks a run to end, or ends it where it can't be asked (any more). Returns what was done, as a sentence."""
        if key and key == run.cancel_key:
            return f"run {run.name} is asked to end"
        if now or run.cancel_key is not None or run.state == RunState.BLOCKED or run.ending is not None:
            self._end(run, cause)
            return f"run {run.name} is cancelled"
        run.cancel_key = key
        run.seq += 1
        at = self._sup.clock.now()
        self._committer.group.cancels.append((run.seq, at, cause, key, run.id))
        self._committer.dirty = True
        if run.host is not None:
            row = (run.id, 0, run.seq, CANCELLED, cause.encode(errors="replace"), at)
            self._sup.hosts.deliveries.setdefault(run.host, []).append(row)
        return f"run {run.name} is asked to end; a second cancel ends it at once"

    def _end(self, run: Run, cause: str) -> None:
        """Ends a run without another word of its code."""
        self._sup.hosts.take_away(run)
        if run.ending is None:
            run.ending = (RunState.CANCELLED, failure(errors.Cancelled(f"run {run.name!r}: {cause}")))
        if self._sup.options.workers and run.open:
            self.steps(run, self._open_steps(run), final=True)
        if run.open and self._sup.options.workers:
            return  # it ends with the last of its steps that has to be killed
        if run.state not in (RunState.RUNNING, RunState.BLOCKED):
            return
        self._sup.hosts.end(run, *run.ending)

    def _open_steps(self, run: Run) -> list[int]:
        if self._committer.dirty:
            self._committer.commit()
        return [row.id for row in self._sup.store.run_steps(run.id) if not row.seq]

    def expire(self, id: int) -> None:
        """A run's time is up."""
        run = self._ledger.runs.get(id)
        if run is not None and run.cancel_key is None and run.ending is None:
            self.run(run, TIMED_OUT)

    def steps(self, run: Run, ids: Iterable[int], *, final: bool = False) -> None:
        """Ends steps of a run that it does not want any more; `final`: child runs are not asked but ended."""
        rest: set[int] = set()
        for id in ids:
            if self._ledger.flow.get(id, run) is not run or self._sup.waits.cancel(id):
                continue
            child = self._ledger.runs.get(id)
            if child is not None and child.parent == run.id:
                if not child.function.options.detached:
                    self.run(child, f"its parent {run.name!r} has cancelled it", now=final)
            else:
                rest.add(id)
        if rest:
            self._waiting(run, rest)
            self._running(rest)

    def _waiting(self, run: Run, ids: set[int]) -> None:
        """Takes steps out of their queues."""
        taken = self._sup.scheduler.drop(run, ids) + self._sup.delays.drop(ids)
        ids.difference_update(row[0] for row in taken)
        if taken:
            self._sup.results.settle(taken, None, CANCELLED, self._sup.waits.cancelled)

    def _running(self, ids: set[int]) -> None:
        for member in list(self._sup.staff.members):
            for claim in list(member.claims.values()):
                for id in ids & claim.open.keys():
                    self._kill(member, claim, claim.open[id])
                    ids.discard(id)

    def _kill(self, member: Member, claim: Claim, row: Row) -> None:
        lane = member.lane
        if lane is not None and Capability.KILL in lane.pool.capabilities:
            self._sup.results.doomed[row[0]] = Doom(member, "cancelled", "cancelled")
            self._sup.staff.kill(member, "cancelled")
            return
        # Nothing can stop it there. Its result will come too late.
        del claim.open[row[0]]
        self._sup.scheduler.closed(member, claim, [row])
        self._sup.results.settle([row], None, CANCELLED, self._sup.waits.cancelled, claim.epoch)

