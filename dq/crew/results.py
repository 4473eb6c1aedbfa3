"""What is done with outcomes: into the group, and on their way to whoever waits for them."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING

import msgspec

from dq import errors
from dq.executor import frames, signing
from dq.executor.contract import Capability
from dq.executor.failures import Failure
from dq.executor.frames import BadFrame
from dq.model.payload import FAILURE, seal
from dq.model.states import CANCELLED, DEAD, FAILED, RETRY, STATUS
from dq.store.group import AttemptRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dq.crew.attempts import Again
    from dq.crew.cancels import Doom
    from dq.crew.claims import Batch, Claim, Row
    from dq.crew.evidence import Death
    from dq.crew.ledger import Function, Run
    from dq.crew.members import Member, Pool
    from dq.crew.reaper import Verdict
    from dq.crew.supervisor import Supervisor

_STATES = tuple(str(state) for state in STATUS)
_FINAL = range(len(_STATES))
# Times max_crashes: how often a step may be there when others may be the cause, until it is held to be it.
PATIENCE = 10
_NEEDS = {"timeout": Capability.HARD_TIMEOUT, "memory": Capability.MEMORY_LIMIT}


def _written(message: frames.Results, done: list[Row]) -> list[tuple[int, int, bytes, int, int]]:
    """The rows of a frame that are on record: where it names a step twice, the first one that ends it."""
    fresh = {row[0] for row in done}
    rows: list[tuple[int, int, bytes, int, int]] = []
    for row in message.rows:
        if row[0] in fresh and row[1] in _FINAL:
            fresh.discard(row[0])
            rows.append(row)
    return rows


def failure(error: errors.DqError) -> bytes:
    """A failure that the supervisor itself has found, as a payload."""
    told = Failure(f"dq.errors.{type(error).__name__}", str(error), "", pickle.dumps(error))
    return signing.sealed(signing.FAILURE, seal(FAILURE, msgspec.msgpack.encode(told)))


class Results:
    """Outcomes of claims, by whatever way they come."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._ledger = supervisor.ledger
        self._committer = supervisor.committer
        self._scheduler = supervisor.scheduler
        self.cancelled = failure(errors.Cancelled("cancelled before anybody had claimed it"))
        self.forgotten = failure(errors.DqError("the step has ended, and `dq gc` has deleted what came of it"))
        self.doomed: dict[int, Doom] = {}  # steps on whose account their process is being killed

    def take(self, member: Member, message: frames.Results) -> None:
        """Results of a claim that is the member's still. Others are too late: they change nothing, and are counted."""
        claim = member.claims.get(message.epoch)
        if claim is None:
            self._scheduler.stale += len(message.rows)
            return
        held = claim.open
        done: list[Row] = []
        again: list[Again] = []
        spent = 0
        strange: int | None = None
        epoch, pid, written = message.epoch, member.pid, self._committer.group.results
        flow = self._ledger.flow if claim.batch is None else None
        for id, status, payload, began, busy in message.rows:
            row = held.pop(id, None)
            if row is None or status not in _FINAL:
                if row is None:
                    self._scheduler.stale += 1
                    continue
                held[id] = row  # until the others of this frame are through
                again.append((row, payload, began, busy))
                strange = strange if status == RETRY else status
                continue
            seq = None
            if flow is not None:
                seq = self._deliver(flow.pop(id), id, status, payload, began + busy // 1000)
            written.append((id, seq, _STATES[status], row[1], epoch, pid, began, began + busy // 1000, payload))
            done.append(row)
            spent += busy
        if done:
            self._finished(member, claim, done, spent, message)
            if claim.gate is not None or self._sup.dedups.open:
                self._look(claim, done, message)
        if strange is not None:
            raise BadFrame(f"a result with the status {strange}")  # what is left of the claim begins again elsewhere
        if again:
            # A frame may name one of them twice, or end it after all.
            self._sup.attempts.again(member, claim, [*{one[0][0]: one for one in again if one[0][0] in held}.values()])
        if self._sup.limits.recycles:
            self._sup.limits.recycle(member)

    def _finished(self, member: Member, claim: Claim, done: list[Row], spent: int, message: frames.Results) -> None:
        self._committer.dirty = self._committer.eager = True
        member.finished += len(done)
        function = self._ledger.functions[done[0][2]]
        average = spent // len(done)
        function.cost = average if function.cost < 0 else function.cost + (average - function.cost) // 4
        self._scheduler.closed(member, claim, done)
        self._ledger.settled([row[0] for row in done])
        batch = claim.batch
        if batch is not None:
            if batch.owner is not None:
                if len(done) < len(message.rows):
                    message = frames.Results(message.epoch, _written(message, done))
                self._committer.after_sync.append((batch.owner, message))
            self.count_down(batch, len(done))

    def _look(self, claim: Claim, done: list[Row], message: frames.Results) -> None:
        """Tells those who keep an eye on some of the steps."""
        attempts = {row[0]: row[1] for row in done}
        rows = _written(message, done)
        if claim.gate is not None:
            self._sup.queues.began(claim.gate, [(row[0], attempts[row[0]], row[3]) for row in rows])
        if self._sup.dedups.open:
            self._sup.dedups.ended([row[:3] for row in rows])

    def _deliver(self, run: Run, id: int, status: int, payload: bytes, at: int) -> int:
        """Numbers a completion of a run, and puts it on the way to the run's host."""
        run.seq += 1
        run.open -= 1
        if run.host is not None:
            row = (run.id, id, run.seq, status, payload, at)
            self._sup.hosts.deliveries.setdefault(run.host, []).append(row)
        if not run.open and run.ending is not None:
            self._sup.hosts.end(run, *run.ending)
        return run.seq

    def count_down(self, batch: Batch, count: int) -> None:
        batch.remaining -= count
        if not batch.remaining:
            self._committer.group.closed_batches.append((batch.first,))
            self._ledger.batches.pop(batch.first, None)
            client = self._sup.clients.all.get(batch.owner.fd) if batch.owner is not None else None
            if client is not None:
                client.batches.discard(batch)

    def no_executor(self, function: Function, rows: Iterable[Row], batch: Batch | None) -> None:
        """Steps that ask for an executor which this supervisor does not have, or which can't do what they need."""
        pools = self._scheduler.pools
        if function.executor in pools:
            self.settle(rows, batch, FAILED, failure(_unable(function, pools)))
            return
        known = ", ".join(pools) or "none"
        error = errors.BadExecutor(
            f"{function.name} asks for the executor {function.executor!r}; this engine has: {known}. "
            f"Start it with `--executor {function.executor}=process:4`, or Engine(executors=...)."
        )
        self.settle(rows, batch, FAILED, failure(error))

    def settle(self, rows: Iterable[Row], batch: Batch | None, status: int, payload: bytes, epoch: int = 0) -> None:
        """Ends steps with an outcome that the supervisor has decided on."""
        rows = list(rows)
        self._ledger.settled([row[0] for row in rows])
        now = self._sup.clock.now()
        told: list[tuple[int, int, bytes, int, int]] = []
        for id, attempt, _function, _args in rows:
            run = self._ledger.flow.pop(id, None)
            seq = self._deliver(run, id, status, payload, now) if run is not None else None
            self._committer.group.results.append((id, seq, _STATES[status], attempt, epoch, 0, now, now, payload))
            told.append((id, status, payload, now, 0))
        self._committer.dirty = self._committer.eager = True
        if batch is not None:
            if batch.owner is not None:
                self._committer.after_sync.append((batch.owner, frames.Results(epoch, told)))
            self.count_down(batch, len(told))
        if self._sup.dedups.open:
            self._sup.dedups.ended([(row[0], status, payload) for row in rows])

    def _end_doomed(
        self, member: Member, row: Row, batch: Batch | None, claim: Claim, doom: Doom, *, begun: bool
    ) -> None:
        """A step whose process was killed on its account."""
        if begun:
            now = self._sup.clock.now()
            attempt = AttemptRow(row[0], row[1], claim.epoch, doom.outcome, member.pid, 0, doom.why, now)
            self._committer.group.attempts.append(attempt)
        self.settle([row], batch, CANCELLED, self._sup.waits.cancelled, claim.epoch)

    def _blame(self, member: Member, verdicts: list[Verdict], death: Death) -> list[Verdict]:
        """Charges what a worker had finished where it could not send that, and has ended by itself."""
        mute = _muted(member, verdicts, death)
        return [
            verdict._replace(outcome="crashed", charged=True)
            if mute and verdict.outcome == "lost" and self._is_charged(verdict.row, alone=mute == 1)
            else verdict
            for verdict in verdicts
        ]

    def _is_charged(self, row: Row, *, alone: bool) -> bool:
        """Whether a step is the cause that its worker could not speak any more: it has closed all descriptors, say.

        It is if no other one comes into question, or if it was there that often; else it would begin for ever.
        """
        failures = known.failures if (known := self._ledger.tried.get(row[0])) else 0
        return alone or row[1] - failures >= PATIENCE * self._ledger.functions[row[2]].max_crashes

    def bereave(self, member: Member, verdicts: list[Verdict], death: Death) -> None:
        """Frees what a dead member held: begun steps are charged, the others go back as if nothing had been."""
        back: list[tuple[Row, Batch | None]] = []
        cause = f"{member.why}; the worker {death}" if member.why else f"the worker {death}"
        now = self._sup.clock.now()
        self._scheduler.unload([verdict.row for verdict in verdicts])
        for row, batch, claim, outcome, charged in self._blame(member, verdicts, death):
            claim.open.pop(row[0], None)
            doom = self.doomed.pop(row[0], None)
            if doom is not None and doom.outcome == "timed_out":
                if self._sup.attempts.timed_out(member, row, batch, claim, doom, death):
                    back.append((row, batch))
                continue
            if doom is not None:
                self._end_doomed(member, row, batch, claim, doom, begun=bool(outcome))
                continue
            if not outcome:
                back.append((row, batch))
                continue
            function = self._ledger.functions[row[2]]
            told = f"{cause}; it may have had {limit} bytes more" if (limit := function.options.memory) else cause
            crash = AttemptRow(row[0], row[1], claim.epoch, outcome, member.pid, int(charged), told, now)
            self._committer.group.attempts.append(crash)
            crashes = self._ledger.crashes[row[0]] = self._ledger.crashes.get(row[0], 0) + charged
            if charged and function.options.on_crash == "park":
                self._sup.attempts.park((row[0], row[1] + 1, row[2], row[3]), batch)
            elif crashes >= function.crashes_max:
                del self._ledger.crashes[row[0]]
                self.settle([row], batch, DEAD, quarantine(function, crashes, told), claim.epoch)
            else:
                back.append(((row[0], row[1] + 1, row[2], row[3]), batch))
        if self.doomed:  # some may have ended in time
            self.doomed = {id: doom for id, doom in self.doomed.items() if doom.member is not member}
        self._scheduler.forget(member)
        self._committer.dirty = True
        self._scheduler.requeue(reversed(back))


def _muted(member: Member, verdicts: list[Verdict], death: Death) -> int:
    """How many steps a worker had finished that then ended by itself, in no body: it could not send what came of them."""
    outcomes = [verdict.outcome for verdict in verdicts if verdict.outcome]
    if member.why or not outcomes or "crashed" in outcomes or not os.WIFEXITED(death.status):
        return 0
    return len(outcomes)


def quarantine(function: Function, crashes: int, cause: str) -> bytes:
    """The failure of a step that is not tried again, since it kills its workers."""
    if function.options.on_crash == "fail":
        text = f'{function.name} killed its worker, and its on_crash is "fail": {cause}.'
    else:
        text = (
            f"{function.name} killed its worker {crashes} times and is quarantined (max_crashes={function.max_crashes})."
            f" Last time {cause}."
        )
    return failure(errors.StepCrashed(text))


def _unable(function: Function, pools: dict[str, Pool]) -> errors.BadExecutor:
    """Says why an executor can't run a function's steps, and which could."""
    needs = function.needs or Capability.NONE
    asks = [word for word, need in _NEEDS.items() if need in needs]
    able = [name for name, pool in pools.items() if name and needs in pool.capabilities]
    pool = pools[function.executor]
    return errors.BadExecutor(
        f"{function.name} has a limit ({' and '.join(asks)}), and the executor {pool.name!r} ({pool.spec}) can't hold a step "
        f"to it: it can't stop one that runs without harm to others. Executors of this engine that can: "
        f"{', '.join(map(repr, able)) or 'none'}. Name one of them with @dq.step(executor=...), or take the limit away."
    )
