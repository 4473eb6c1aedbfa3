"""How work ends before its time: a run that is cancelled, a step that its run does not want any more.

A run hears of a cancel in the order of its other completions, and its host then says which of its steps are to end.
What waits is taken out of its queue. A body that runs is killed with its process, and its step ends when that is dead:
never is a step on record as ended while its body goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dq import errors
from dq.crew.results import failure
from dq.crew.withdrawals import withdraw
from dq.executor import frames
from dq.executor.contract import Capability
from dq.executor.options import TIMED_OUT
from dq.model.states import CANCELLED, RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dq.crew.claims import Claim, Row
    from dq.crew.ledger import Run
    from dq.crew.members import Member
    from dq.crew.supervisor import Supervisor


class Doom(NamedTuple):
    """What becomes of a step whose process is being killed on its account."""

    member: Member
    outcome: str  # of the attempt
    why: str
    began: int = 0  # when its body began, microseconds UTC


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
        """Ends a run and its child runs without another word of their code: they stop from above, and end from below."""
        family = self._family(run)
        for one in family:
            self._sup.hosts.take_away(one)
            if one.ending is None:
                why = cause if one is run else f"it was cancelled together with {run.name!r}"
                self.condemn(one, why)
                self._committer.group.condemned.append((why, one.id))
                self._committer.dirty = True
        if self._committer.dirty:
            self._committer.commit()  # what is read below must have been written
        for one in reversed(family):
            self._close(one)

    @staticmethod
    def condemn(run: Run, why: str) -> None:
        """A run is to end as soon as nothing of it is alive: as failed if its time is up, else as cancelled."""
        late = why == TIMED_OUT
        kind = errors.RunTimeout if late else errors.Cancelled
        run.ending = (RunState.FAILED if late else RunState.CANCELLED, failure(kind(f"run {run.name!r}: {why}")))

    def load(self) -> None:
        """Ends what an earlier supervisor had no time to end."""
        condemned = [run for run in self._ledger.runs.values() if run.ending is not None]
        for run in condemned:
            self._sup.hosts.take_away(run)
        for run in reversed(condemned):
            self._close(run)

    def _family(self, run: Run) -> list[Run]:
        """A run and all that it has called, parents first, except those that go on without it."""
        family = [run]
        for one in family:
            children = [self._ledger.runs[id] for id in one.children or () if id in self._ledger.runs]
            family += [child for child in children if not child.function.options.detached]
        return family

    def _close(self, run: Run) -> None:
        """Ends the steps of a run that is ending, and the run with the last of them: some may have to be killed first."""
        own = {id for id in self._sup.store.open_ids(run.id) if id not in self._ledger.runs}
        # Where nobody is at work, nothing of it is loaded, and nothing has to be killed.
        idle = not self._sup.options.workers
        if idle:
            run.open = len(own)
            self._ledger.flow.update(dict.fromkeys(own, run))
            if run.parent in self._ledger.runs:
                self._ledger.flow[run.id] = self._ledger.runs[run.parent]
        self._own(run, own)
        if idle and own:
            self._sup.results.settle([(id, 0, 0, b"") for id in own], None, CANCELLED, self._sup.waits.cancelled)
        if not run.open and run.ending is not None and run.state in (RunState.RUNNING, RunState.BLOCKED):
            self._sup.hosts.end(run, *run.ending)

    def expire(self, id: int) -> None:
        """A run's time is up."""
        run = self._ledger.runs.get(id)
        if run is not None and run.cancel_key is None and run.ending is None:
            self.run(run, TIMED_OUT)

    def steps(self, run: Run, ids: Iterable[int]) -> None:
        """Ends steps of a run that it does not want any more. A child run is asked to end, once."""
        rest: set[int] = set()
        for id in ids:
            child = self._ledger.runs.get(id)
            if child is None:
                if self._ledger.flow.get(id, run) is run and not self._sup.waits.cancel(id):
                    rest.add(id)
            elif child.parent == run.id and child.cancel_key is None and not child.function.options.detached:
                self.run(child, f"its parent {run.name!r} has cancelled it")
        self._own(run, rest)

    def _own(self, run: Run, ids: set[int]) -> None:
        """Ends those of `ids` that wait, and sees to the end of those that run."""
        if ids:
            self._waiting(run, ids)
            self._running(ids)

    def _waiting(self, run: Run, ids: set[int]) -> None:
        """Takes steps out of their queues."""
        taken = [row for row, _ in withdraw(self._sup, run, ids)]
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
            if any(entry.id == row[0] for entry in self._sup.slots.entries(member.slot)):
                self._sup.staff.kill(member, "cancelled")
            else:
                member.control.send(frames.Revoke())  # another's step may be at work there: see `given_back`
            return
        # Nothing can stop it there. Its result will come too late.
        del claim.open[row[0]]
        self._sup.scheduler.closed(member, claim, [row])
        self._sup.results.settle([row], None, CANCELLED, self._sup.waits.cancelled, claim.epoch)

    def given_back(self, member: Member) -> None:
        """A member was asked for what it has not begun: of the steps that nobody wants it has begun the others."""
        doomed = self._sup.results.doomed
        for id in [id for id, doom in doomed.items() if doom.member is member and doom.outcome == "cancelled"]:
            if any(id in claim.open for claim in member.claims.values()):
                self._sup.staff.kill(member, "cancelled")
                continue
            del doomed[id]
            run = self._ledger.flow.get(id)
            if run is not None:
                self._waiting(run, {id})
