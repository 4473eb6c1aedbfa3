"""What follows from an attempt that did not end its step: another one, later, or none until somebody says so.

A worker judges a failure by the function's policy and says when the next attempt may begin. That time goes into the file
together with the failure, so that it holds over restarts. Deaths of workers are counted apart from failures.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dq import errors
from dq.crew.delays import FAR
from dq.crew.evidence import innermost
from dq.crew.ledger import Tried
from dq.crew.results import failure
from dq.executor import failures, frames
from dq.executor.frames import BadFrame
from dq.executor.options import SUPERVISOR
from dq.model.payload import DELAY
from dq.model.states import FAILED, STATUS
from dq.store.group import AttemptRow, Group

if TYPE_CHECKING:
    from dq.crew.cancels import Doom
    from dq.crew.claims import Batch, Claim, Row
    from dq.crew.clients import Client
    from dq.crew.evidence import Death
    from dq.crew.ledger import Function
    from dq.crew.members import Member
    from dq.crew.supervisor import Supervisor
    from dq.store.group import TermRow

CAUSE_MAX = 1000  # characters of a failure that are kept for each attempt

Again = tuple["Row", bytes, int, int]  # a row whose attempt has failed: (row, payload, began, busy)


class Attempts:
    """Failures and due times, parked steps, cursors."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._ledger = supervisor.ledger
        self._committer = supervisor.committer
        self._group: Group | None = None  # the group whose cursors stand where `_places` says
        self._places: dict[int, int] = {}

    def again(self, member: Member, claim: Claim, failed: list[Again]) -> None:
        """Attempts that failed and are followed by others. The rows are in the claim still."""
        if not failed:
            return
        told = [(row, *_read(payload), began, busy) for row, payload, began, busy in failed]
        now = self._sup.clock.now()
        held: list[tuple[Row, int]] = []
        for row, delay, cause, began, busy in told:
            id, attempt, function, args = claim.open.pop(row[0])
            known = self._ledger.tried.get(id, Tried())
            due = now + delay
            if known.verdict:
                # It was judged only; a successor knows by the due time that this has been done.
                self._ledger.tried[id] = known._replace(verdict=b"")
                due = max(due, known.ended_at + 1)
            else:
                ended = began + busy // 1000
                self._committer.group.attempts.append(
                    AttemptRow(id, attempt, claim.epoch, "failed", member.pid, 0, cause, ended, began)
                )
                self._ledger.tried[id] = Tried(known.failures + 1, known.since or began)
            self._committer.group.dues.append((id, due))
            held.append(((id, attempt + 1, function, args), due))
        member.finished += len(held)
        if claim.gate is not None:
            self._sup.queues.began(claim.gate, [(row[0], row[1], began) for row, _, began, _ in failed])
        self._sup.scheduler.closed(member, claim, [row for row, _ in held])
        self._sup.scheduler.trim(claim)
        self._committer.tidy()
        for row, due in held:
            self._sup.delays.hold(row, claim.batch, due)

    def timed_out(self, member: Member, row: Row, batch: Batch | None, claim: Claim, doom: Doom, death: Death) -> bool:
        """A step whose process was killed since it took too long. Returns whether it is tried again."""
        function = self._ledger.functions[row[2]]
        now = self._sup.clock.now()
        stack = innermost(death.stack)
        cause = f"{doom.why}; it was at:\n{stack}" if stack else doom.why
        self._committer.group.attempts.append(
            AttemptRow(row[0], row[1], claim.epoch, "timed_out", member.pid, 0, cause, now, doom.began)
        )
        told = _timeout(function, cause)
        if not function.options.retry:
            self._sup.results.settle([row], batch, FAILED, told, claim.epoch)
            return False
        known = self._ledger.tried.get(row[0], Tried())
        self._ledger.tried[row[0]] = Tried(known.failures + 1, known.since or doom.began, told, now)
        return True

    def park(self, row: Row, batch: Batch | None) -> None:
        """Keeps a step whose worker has died until somebody says that it may be tried again."""
        self._committer.group.dues.append((row[0], FAR))
        self._sup.delays.hold(row, batch, FAR)
        name = self._ledger.functions[row[2]].name
        self._sup.notice(
            f"step {row[0]} ({name}) is parked, since its worker died in it. `dq retry {row[0]} --db "
            f"{self._sup.options.db}` lets it begin again."
        )

    def recall(self, rows: list[Row], terms: dict[int, TermRow]) -> list[Row]:
        """Steps that come from the file, with their due times: what is known of their attempts.

        Returns the rows. One whose last attempt nobody has judged yet has the number of that attempt.
        """
        again = {row[0]: row for row in rows if row[1] > 1}
        if not again:
            return rows
        store, unjudged = self._sup.store, set[int]()
        for id, (_last, charged) in store.attempts(again).items():
            if charged:
                self._ledger.crashes[id] = charged
        for record in store.failures(again):
            id, verdict = record.step, b""
            due = terms[id].due_at or 0 if id in terms else 0
            if record.timed_out_at > max(record.failed_at, due - 1):
                cause = [row.cause for row in store.attempt_causes(id) if row.outcome == "timed_out"][-1]
                verdict = _timeout(self._ledger.functions[again[id][2]], cause)
                unjudged.add(id)
            self._ledger.tried[id] = Tried(record.failures, record.since, verdict, record.timed_out_at)
        return [(row[0], row[1] - (row[0] in unjudged), row[2], row[3]) for row in rows] if unjudged else rows

    def progress(self, member: Member, message: frames.Progress) -> None:
        """How far an attempt has come, for the next one. It counts while the attempt is the member's."""
        claim = member.claims.get(message.epoch)
        if claim is None or message.step not in claim.open:
            self._sup.scheduler.stale += 1
            return
        self._ledger.cursors[message.step] = message.cursor
        group = self._committer.group
        if self._group is not group:
            self._group, self._places = group, {}
        row = (message.step, message.cursor)
        place = self._places.setdefault(message.step, len(group.progress))
        if place == len(group.progress):
            group.progress.append(row)
        else:
            group.progress[place] = row
        self._committer.dirty = True

    def release(self, client: Client, message: frames.Release) -> None:
        """Somebody says that a step may begin now."""
        if self._committer.dirty:
            self._committer.commit()
        error = self._refusal(message.step)
        if error is not None:
            refused = frames.Refused(message.ticket, type(error).__name__, str(error))
            self._sup.clients.answer(client, refused)
            return
        now = self._sup.clock.now()
        term = self._sup.store.terms([message.step]).get(message.step)
        text = f"step {message.step} waits for nothing but a worker"
        if term is not None and term.due_at is not None and term.due_at > now:
            self._committer.group.dues.append((message.step, now))
            self._committer.dirty = True
            self._sup.delays.release(message.step)
            text = f"step {message.step} begins as soon as a worker is free"
        self._sup.clients.answer(client, frames.Done(message.ticket, text))

    def _refusal(self, step: int) -> errors.DqError | None:
        """Why a step can't be tried again, if so."""
        store = self._sup.store
        if step not in store.known_steps([step]):
            return errors.NoSuchStep(f"there is no step {step} in {self._sup.options.db}.")
        function = self._ledger.functions[store.step_function(step)]
        for result in store.results([step]):
            state = STATUS[result.status]
            return errors.DqError(f"step {step} ({function.name}) is {state}; what has a result is not run again.")
        if function.executor == SUPERVISOR or function.kind != "step":
            return errors.DqError(
                f"step {step} ({function.name}) is no step that a worker runs, so it can't be retried."
            )
        return None


def _read(payload: bytes) -> tuple[int, str]:
    """The delay and the short text of a failure. Raises BadFrame."""
    try:
        (delay,) = DELAY.unpack_from(payload)
        told = failures.read(payload[DELAY.size :])
    except (struct.error, errors.DamagedPayload) as error:
        raise BadFrame(f"a failure that makes no sense: {error}") from error
    if delay >= FAR // 2:
        raise BadFrame("a delay of thousands of years")
    return delay, f"{told.type_name}: {told.text}"[:CAUSE_MAX]


def _timeout(function: Function, cause: str) -> bytes:
    """The failure of an attempt that took too long."""
    return failure(
        errors.StepTimeout(
            f"{function.name} was killed with its process: {cause}\n"
            "If it needs longer, raise its limit: `@dq.step(timeout=...)`, or `.options(timeout=...)` for one call."
        )
    )
