"""What a body wants done together with its completion: in one transaction with it, or not at all.

    what the group holds is put down ─► BEGIN ─► the body's statements ─► its result, signals, new steps ─► COMMIT

A statement that can't be done rolls this transaction back, and only then is anything decided: the attempt has failed.
Who waits for the step is told after the sync, which all transactions of a turn share.
"""

from __future__ import annotations

import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

from dq import errors
from dq.crew.attempts import CAUSE_MAX
from dq.crew.claims import Batch, Row
from dq.crew.ledger import Tried
from dq.crew.results import failure
from dq.crew.targets import unfinished
from dq.executor import frames, signing
from dq.executor.frames import BadFrame, Define
from dq.executor.options import SUPERVISOR
from dq.model.payload import PICKLE, seal
from dq.model.states import COMPLETED, FAILED, STATUS
from dq.store.group import AttemptRow
from dq.store.guard import Statement

if TYPE_CHECKING:
    from dq.crew.claims import Claim
    from dq.crew.clients import Client
    from dq.crew.ledger import Run
    from dq.crew.members import Member
    from dq.crew.supervisor import Supervisor

# A statement from outside is on record as a step that the supervisor itself has ended.
_EXECUTE = Define(0, "dq:execute", "step", b"dq:execute------", b"", SUPERVISOR, 1)


class Effects:
    """Completions with effects, and statements from outside."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._committer = supervisor.committer
        self._ledger = supervisor.ledger
        self._scheduler = supervisor.scheduler
        self._results = supervisor.results

    def take(self, member: Member, message: frames.Effects) -> None:
        """A body has returned. Raises BadFrame for what makes no sense."""
        claim = member.claims.get(message.epoch)
        row = claim.open.get(message.step) if claim is not None else None
        if claim is None or row is None:
            self._scheduler.stale += 1  # its claim is over: nothing of it counts
            return
        _check(message)
        statements = [Statement(*told) for told in message.statements]
        try:
            runs = [unfinished(self._sup, run, "signalled") for run, _, _ in message.signals]
            self._committer.commit_effects(statements, partial(self._complete, member, message, runs))
        except (errors.EffectFailed, errors.NoSuchRun, errors.RunEnded) as error:
            self._fail(member, claim, row, message.began, error)

    def _complete(self, member: Member, message: frames.Effects, runs: list[Run]) -> None:
        """Everything that goes with the completion, and it. The statements have been done."""
        for run, (_, name, payload) in zip(runs, message.signals, strict=True):
            self._sup.waits.signal(run, self._ledger.take(1), name, payload)
        if message.submits:
            self._submit(member, message)
        row = (message.step, COMPLETED, message.payload, message.began, message.busy)
        self._results.take(member, frames.Results(message.epoch, [row]))

    def _submit(self, member: Member, message: frames.Effects) -> None:
        """New steps of nobody's: into the group, and into their lanes."""
        group, now = self._committer.group, self._sup.clock.now()
        functions = [self._ledger.function(define, member.nursery.context_id) for define in message.defines]
        first = self._ledger.take(len(message.submits))
        rows: list[Row] = [
            (first + place, 1, functions[number].id, args) for place, (number, args) in enumerate(message.submits)
        ]
        group.steps += [(id, function, args, now) for id, _, function, args in rows]
        batch = self._ledger.batches[first] = Batch(first, rows[-1][0], len(rows), None)
        group.batches.append((batch.first, batch.last))
        if message.terms:
            terms = {first + term.step: term for term in message.terms}
            rows = self._sup.terms.take(rows, batch, terms)
        for row in rows:
            self._queue(row, batch)

    def _queue(self, row: Row, batch: Batch) -> None:
        function = self._ledger.functions[row[2]]
        lane = self._scheduler.lane(function)
        if lane is None:
            self._results.no_executor(function, [row], batch)
        else:
            self._scheduler.enqueue(lane, 0, [row], batch, spill=False)

    def _fail(self, member: Member, claim: Claim, row: Row, began: int, error: errors.DqError) -> None:
        """The attempt has failed at its commit; its body is over, and its worker goes on with the next one.

        Where the step has a retry policy, the next worker judges this failure before it does anything else.
        """
        now, told = self._sup.clock.now(), failure(error)
        cause = f"{type(error).__name__}: {error}"[:CAUSE_MAX]
        attempt = AttemptRow(row[0], row[1], claim.epoch, "failed", member.pid, 0, cause, now, began)
        self._committer.group.attempts.append(attempt)
        self._committer.dirty = True
        del claim.open[row[0]]
        self._scheduler.closed(member, claim, [row])
        self._scheduler.trim(claim)
        member.finished += 1
        if not self._ledger.functions[row[2]].options.retry:
            self._results.settle([row], claim.batch, FAILED, told, claim.epoch)
            return
        known = self._ledger.tried.get(row[0], Tried())
        self._ledger.tried[row[0]] = Tried(known.failures + 1, known.since or began, told, now)
        self._committer.tidy()
        self._scheduler.requeue([(row, claim.batch)])

    def execute(self, client: Client, message: frames.Execute) -> None:
        """A statement from outside. One that is on record was done already, and its sender has not heard of it."""
        if not client.owns_fresh([(message.id, 0, b"")]):
            if self._committer.dirty:
                self._committer.commit()
            known = self._sup.store.results([message.id])
            if known:
                self._sup.clients.answer(client, frames.Done(message.ticket, known[0].payload.hex()))
                return
            self._sup.clients.admit(client, message.id)
            if self._sup.store.known_steps([message.id]):
                raise BadFrame(f"the id {message.id}, which is a step's")
        statement = Statement(message.sql, message.params)
        try:
            self._committer.commit_effects([statement], partial(self._record, client, message))
        except errors.EffectFailed as error:
            self._sup.clients.answer(client, frames.Refused(message.ticket, "EffectFailed", str(error)))

    def _record(self, client: Client, message: frames.Execute) -> None:
        group, now = self._committer.group, self._sup.clock.now()
        function = self._ledger.function(_EXECUTE, client.context)
        payload = _seal(self._sup.store.guard.changed, signing.VALUE)
        args = _seal(((message.sql, message.params), {}), signing.ARGUMENTS)
        group.steps.append((message.id, function.id, args, now))
        group.results.append((message.id, None, STATUS[COMPLETED], 0, 0, 0, now, now, payload))
        self._sup.clients.answer(client, frames.Done(message.ticket, payload.hex()))


def _seal(value: Any, kind: bytes) -> bytes:
    return signing.sealed(kind, seal(PICKLE, pickle.dumps(value, 5)))


def _check(message: frames.Effects) -> None:
    """Raises BadFrame where places point nowhere. To be asked before anything is decided."""
    defines, submits = len(message.defines), len(message.submits)
    if any(not 0 <= number < defines for number, _ in message.submits):
        raise BadFrame("a step of a function that was not introduced")
    if any(not 0 <= term.step < submits for term in message.terms):
        raise BadFrame("a term of a step that was not submitted")
