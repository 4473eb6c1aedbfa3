"""Copies of runs: what is on record of one up to a step, under a new id, from where it goes on anew."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from dq import errors
from dq.executor import failures, frames
from dq.executor.options import SUPERVISOR
from dq.model.states import RunState, StepState
from dq.store.group import ForkRow, LetterRow

if TYPE_CHECKING:
    from dq.crew.clients import Client, Clients
    from dq.crew.supervisor import Supervisor
    from dq.store.reads import BadStep, RunRecord

_END = (1 << 63) - 1
_NUMBERED = re.compile(r"~\d+$")


class Cut(NamedTuple):
    """Which part of a record is copied: steps with a lower id, asked for by then, and not one of these."""

    before: int = _END
    until: int = _END  # microseconds UTC
    dropped: tuple[int, ...] = ()


class Forks:
    """Makes a run of another one, in one transaction. The other one is only read."""

    def __init__(self, supervisor: Supervisor, clients: Clients) -> None:
        self._sup = supervisor
        self._clients = clients
        self._ledger = supervisor.ledger
        self._store = supervisor.store

    def fork(self, client: Client, message: frames.ForkRun) -> None:
        """Does what a client asks, once: the new run's id says whether it is done already."""
        if self._sup.committer.dirty:
            self._sup.committer.commit()  # what is read and copied must be in the file
        made = self._store.run_by_id(message.id)
        try:
            if made is None:
                self._clients.admit(client, message.id)
            name = made.name if made is not None else self._make(message)
        except errors.DqError as error:
            self._clients.answer(client, frames.Refused(message.ticket, type(error).__name__, str(error)))
            return
        self._clients.answer(client, frames.Done(message.ticket, name))

    def _make(self, message: frames.ForkRun) -> str:
        original = self._store.find_run(message.run)
        if original is None:
            raise errors.NoSuchRun(f"there is no run {message.run!r} in the file")
        if message.retry:
            cut = self._before_the_failure(original)
        else:
            cut = Cut(self._step(original, message.step)) if message.step else Cut(0)
        name = self._name(message)
        self._write(message, original, name, cut)
        return name

    def _name(self, message: frames.ForkRun) -> str:
        if message.name:
            if self._is_taken(message.name):
                raise errors.RunConflict(f"run id {message.name!r} is taken. Use another id for the copy.")
            return message.name
        stem, number = _NUMBERED.sub("", message.run), 2
        while self._is_taken(f"{stem}~{number}"):
            number += 1
        return f"{stem}~{number}"

    def _is_taken(self, name: str) -> bool:
        return name in self._ledger.by_name or self._store.find_run(name) is not None

    def _step(self, original: RunRecord, text: str) -> int:
        """The step that is meant by an id, a name, or NAME#N for its N-th call."""
        if text.isascii() and text.isdigit() and len(text) < 19:
            if self._store.run_of_step(int(text)) != original.id:
                raise errors.BadFork(f"step {text} is not one of run {original.name!r}; `dq show` lists them")
            return int(text)
        name, mark, number = text.rpartition("#")
        nth = int(number) if mark and number.isascii() and number.isdigit() and len(number) < 18 else 0
        name = name if nth else text
        meant = [function.id for function in self._ledger.functions.values() if _is_called(function.name, name)]
        found = self._store.nth_call(original.id, meant, max(nth, 1) - 1)
        if found is None:
            raise errors.BadFork(
                f"run {original.name!r} has no step {text!r}. A step is told by its id, as `dq show` lists them, by its "
                "name, which means the first call, or by NAME#2 for the second"
            )
        return found

    def _before_the_failure(self, original: RunRecord) -> Cut:
        """Everything but what has made a run end, and what its code has begun after that."""
        if original.state not in (RunState.FAILED, RunState.CANCELLED):
            raise errors.BadFork(
                f"run {original.name!r} is {original.state}; only a failed or cancelled one is retried. "
                "`dq fork` makes a copy of any run, from any step"
            )
        undone = self._store.undone_steps(original.id)
        if undone:
            raise errors.BadFork(
                f"run {original.name!r} has run {undone} compensations, so what its steps have done is undone and can't be "
                "taken as done. `dq fork` without --from starts it over; with --from you say what still holds"
            )
        bad = self._store.bad_steps(original.id)
        if original.state == RunState.CANCELLED or original.cancel_seq:
            return self._before_the_cancel(original, bad)
        blamed = self._to_blame(original, bad)
        if not blamed:
            return Cut()
        return Cut(until=min(step.at for step in blamed), dropped=tuple(step.id for step in blamed))

    def _before_the_cancel(self, original: RunRecord, bad: list[BadStep]) -> Cut:
        """What a cancel has ended are the cancelled steps that come after it in the order of delivery."""
        heard = original.cancel_seq or self._store.last_good_seq(original.id)
        ended = tuple(step.id for step in bad if step.state == StepState.CANCELLED and (step.seq or 0) > heard)
        return Cut(until=original.cancel_at or _END, dropped=ended)

    def _to_blame(self, original: RunRecord, bad: list[BadStep]) -> list[BadStep]:
        """The steps whose failure is the run's own; where there is none, all that have failed."""
        failed = [step for step in bad if step.state != StepState.CANCELLED]
        told = _told(original.payload)
        same = [step for step in failed if told is not None and _told(step.payload) == told]
        return same or [step for step in failed if self._ledger.functions[step.function].executor != SUPERVISOR]

    def _write(self, message: frames.ForkRun, original: RunRecord, name: str, cut: Cut) -> None:
        function = self._ledger.functions[original.function]
        dropped = json.dumps(cut.dropped)
        copied, seq, signals = self._store.fork_size(original.id, cut.before, cut.until, dropped)
        timeout = function.options.timeout
        deadline = self._sup.clock.now() + timeout if timeout else 0
        run = self._ledger.start(
            message.id, name, function, message.args or original.args, message.fingerprint or original.fingerprint, None,
            deadline or None, original.scheduled_at,
        )  # fmt: skip
        run.seq = seq
        self._sup.hosts.watch_deadline(run, deadline)
        first = self._ledger.take(copied)
        origin = original.origin or f"{original.id} {original.created_at} {original.name}"
        checkpoint = 0 if message.args else self._store.last_checkpoint(original.id, cut.before, cut.until)
        if checkpoint:
            checkpoint = first - 1 + self._store.fork_size(original.id, checkpoint + 1, cut.until, dropped)[0]
        row = ForkRow(
            message.id, first, original.id, cut.before, cut.until, dropped, self._sup.waits.reserve(signals), origin,
            checkpoint or None, copied,
        )  # fmt: skip
        self._sup.committer.group.forks.append(row)
        if message.retry and original.state == RunState.FAILED:
            dealt = LetterRow(original.id, "retried", message.id, self._sup.clock.now())
            self._sup.committer.group.letters.append(dealt)
        self._sup.committer.dirty = True


def _is_called(function: str, name: str) -> bool:
    """Whether people mean a function by a name: the whole one, without its module, or the last word of it."""
    short = function.rpartition(":")[2]
    return name in (function, short, short.rpartition(".")[2])


def _told(payload: bytes | None) -> tuple[str, str] | None:
    """Type and text of a recorded failure, without unpickling."""
    try:
        told = failures.read(payload or b"")
    except errors.DamagedPayload:
        return None
    return told.type_name, told.text
