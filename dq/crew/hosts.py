"""Runs and the hosts that run them: who has which, what they ask for, what they are told."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from dq import errors
from dq.crew.claims import Row
from dq.crew.members import Member
from dq.executor import frames
from dq.executor.frames import BadFrame
from dq.executor.options import CHECKPOINT, SUPERVISOR
from dq.model.states import STATUS, RunState, StepState
from dq.store.group import AttemptRow

if TYPE_CHECKING:
    from dq.crew.evidence import Death
    from dq.crew.ledger import Function, Run
    from dq.crew.results import Results
    from dq.crew.supervisor import Supervisor

HISTORY_ROWS = 1000  # recorded steps in one frame
_RUN_AND_FUNCTION = itemgetter(1, 2)  # of what a host asks for
ASSIGN_MAX = 256  # runs that are given to hosts in one turn, so that others are heard meanwhile


class Hosts:
    """The supervisor's side of runs."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._ledger = supervisor.ledger
        self._committer = supervisor.committer
        self._scheduler = supervisor.scheduler
        self._store = supervisor.store
        self.results: Results
        self.functions: dict[Member, dict[int, Function]] = {}
        self.deliveries: dict[Member, list[tuple[int, int, int, int, bytes, int]]] = {}
        self._ends: list[tuple[Run, str, bytes]] = []  # ends that are being recorded
        self.more = False  # whether there are runs to be given to a host that is there

    def assign(self) -> None:
        """Gives each run that nobody has to the host of its context, if that is ready."""
        left = ASSIGN_MAX
        for context in self._ledger.homeless.contexts:
            host = self._sup.staff.hosts.get(context)
            if host is not None and host.ready and not host.stopping:
                runs = self._ledger.homeless.of(context, left)
                left -= len(runs)
                for run in runs:
                    self._assign(run, host)
        self.more = not left and bool(self._ledger.homeless)

    def _assign(self, run: Run, host: Member) -> None:
        """Sends a run with its history. What is read here is in the file; it leaves when it is on disk."""
        if self._committer.dirty:
            self._committer.commit()
        run.host = host
        del self._ledger.homeless[run.id]
        host.runs.add(run.id)
        mail = self._committer.after_sync
        self._define(host, run.function.id)
        record = self._store.run_by_id(run.id)
        assert record is not None
        args, run.sent, chapter = record.args, 0, 0
        cancel = (record.cancel_seq, record.cancel_at or 0, record.cancel_cause or "") if record.cancel_seq else None
        began, origin = record.created_at, ""
        if record.origin:
            id, at, name = record.origin.split(" ", 2)
            began, origin = int(at), f"{id} {name}"
        if record.checkpoint:
            run.sent = record.checkpoint
            args, chapter, began = self._store.checkpoint_at(record.checkpoint)
        due = record.scheduled_at or 0
        told = frames.Assign(run.id, run.name, run.function.id, args, began, cancel, chapter, due, origin, run.sent)
        mail.append((host.peer, told))
        self._history(run, host)

    def _history(self, run: Run, host: Member) -> None:
        """Sends the next part of a run's history: a run of a million steps must not fill anybody's memory."""
        if self._committer.dirty:
            self._committer.commit()
        page = self._store.run_page(run.id, run.sent, HISTORY_ROWS)
        rows: list[tuple[int, int, str, int, bytes, bytes, int, int, bytes, int]] = [*page]
        for number in {row[1] for row in rows}:
            self._define(host, number)
        if rows:
            run.sent = rows[-1][0]
        self._committer.after_sync.append((host.peer, frames.History(run.id, rows, len(rows) < HISTORY_ROWS)))
        self._committer.eager = True

    def _define(self, host: Member, number: int) -> None:
        if number not in host.defined:
            host.defined.add(number)
            self._committer.after_sync.append((host.peer, self._ledger.functions[number].define))

    def arguments(self, run: int) -> bytes:
        """A run's recorded arguments."""
        if self._committer.dirty:
            self._committer.commit()
        row = self._store.run_by_id(run)
        return row.args if row is not None else b""

    def renew(self, run: Run, function: Function) -> None:
        """Somebody has started a run again that is here already: a blocked one is tried with the code of today."""
        if run.function is not function:
            run.function = function
            if run.id in self._ledger.homeless:
                self._ledger.homeless[run.id] = run
        if run.state == RunState.BLOCKED:
            self._ledger.change(run, RunState.RUNNING)

    def hear(self, host: Member, message: frames.Any) -> bool:
        """Does what a host asks; False where its message has no place here."""
        match message:
            case frames.Steps(rows, terms):
                self._steps(host, rows, {term.step: term for term in terms})
            case frames.More(id):
                run = self._ledger.runs.get(id)
                if run is not None and run.host is host:
                    self._history(run, host)
            case frames.Withdraw(rows):
                self._withdraw(host, rows)
            case frames.Define():
                known = self.functions.setdefault(host, {})
                known[message.number] = self._ledger.function(message, host.nursery.context_id)
            case frames.Finish(id, state, payload):
                self._finish(host, id, state, payload)
            case frames.Block(id, reason):
                self._block(host, id, reason)
            case frames.Lease():
                self._committer.after_sync.append((host.peer, frames.Leased(*self.lease_to(host))))
                self._committer.eager = True
            case _:
                return False
        return True

    def lease_to(self, host: Member) -> tuple[int, int]:
        """A block of ids for a host: (first, count)."""
        first, count = self._ledger.lease()
        host.ids.add(first, count)
        return first, count

    def _steps(
        self, host: Member, asked: list[tuple[int, int, int, str, int, bytes, bytes]], terms: dict[int, frames.Term]
    ) -> None:
        functions, flow, written = self.functions[host], self._ledger.flow, self._committer.group.flow_steps
        numbers = {row[2] for row in asked}
        if not functions.keys() >= numbers:
            raise BadFrame("steps of functions that were not introduced")
        marks = {number for number in numbers if functions[number].name == CHECKPOINT}
        if marks and not all(row[3].partition(".")[0].isdecimal() for row in asked if row[2] in marks):
            raise BadFrame("a checkpoint of no chapter")  # its run could never go on from it
        if not host.ids.spend_all([row[0] for row in asked]):
            raise BadFrame("steps with ids that are not this host's to give, or that it has given already")
        now = self._sup.clock.now()
        by_function: dict[Function, list[Row]] = {}
        for (run_id, number), group in groupby(asked, _RUN_AND_FUNCTION):  # a fan-out is thousands of rows of one kind
            run, function = self._ledger.runs.get(run_id), functions[number]
            if run is None or run.host is not host:
                continue  # the run was taken away meanwhile; its next host asks again
            rows: list[Row] = []
            for id, _, _, scope, occurrence, fingerprint, args in group:
                written.append((id, run_id, function.id, scope, occurrence, fingerprint, args, now))
                flow[id] = run
                rows.append((id, 1, function.id, args))
                if function.kind == "workflow":
                    self._start_child(run, id, function, args, fingerprint, now)
            run.open += len(rows)
            if function.executor == SUPERVISOR:
                for row in rows:
                    self._sup.waits.take(function, row[0], run, terms.get(row[0]), now)
            elif function.kind != "workflow":
                by_function.setdefault(function, []).extend(rows)
        self._committer.dirty = True
        for function, rows in by_function.items():
            self._queue(host, function, rows, terms)

    def _start_child(self, parent: Run, id: int, function: Function, args: bytes, fingerprint: bytes, now: int) -> None:
        """A run has called another workflow: the child run has the id of that step, and ends it with its own end."""
        name = f"{parent.root}/{id}"
        while name in self._ledger.by_name or self._store.find_run(name) is not None:
            name += "+"  # somebody has chosen just this name for a run of theirs
        timeout = function.options.timeout
        child = self._ledger.start(id, name, function, args, fingerprint, parent, now + timeout if timeout else None)
        self.watch_deadline(child, now + timeout if timeout else 0)

    def watch_deadline(self, run: Run, deadline: int) -> None:
        """Has a run cancelled when its time is up."""
        if deadline:
            id = run.id
            self._sup.alarms.at(deadline, lambda: self._sup.cancels.expire(id))

    def _withdraw(self, host: Member, rows: list[tuple[int, int]]) -> None:
        by_run: dict[int, list[int]] = {}
        for run_id, step in rows:
            by_run.setdefault(run_id, []).append(step)
        for run_id, steps in by_run.items():
            run = self._ledger.runs.get(run_id)
            if run is not None and run.host is host:
                self._sup.cancels.steps(run, steps)

    def _queue(self, host: Member, function: Function, rows: list[Row], terms: dict[int, frames.Term]) -> None:
        lane = self._scheduler.lane(function)
        if lane is None:
            self.results.no_executor(function, rows, None)
            return
        if terms:
            rows = self._sup.terms.take(rows, None, terms)
            if not rows:
                return
        only = {self._ledger.flow[row[0]] for row in rows}
        run = only.pop() if len(only) == 1 else None
        self._scheduler.enqueue(lane, -1 - host.slot, rows, None, run, spill=not terms)

    def _finish(self, host: Member, id: int, state: str, payload: bytes) -> None:
        run = self._ledger.runs.get(id)
        if run is None or run.host is not host:
            self._scheduler.stale += 1
            return
        self._let_go(run, host)
        run.ending = (state, payload)  # a run ends when the steps that it has submitted have ended
        self._ledger.homeless.pop(run.id, None)
        self._release(run)
        if run.id in self._ledger.runs and not run.open and run.state == RunState.RUNNING:
            self.end(run, state, payload)

    def _release(self, run: Run) -> None:
        """The code of a run has ended: nobody waits for its timers any more, and its detached children go on alone."""
        self._sup.waits.forget(run)
        for id in list(run.children or ()):
            child = self._ledger.runs.get(id)
            if child is not None and child.function.options.detached and self._ledger.flow.pop(id, None) is not None:
                run.open -= 1

    def take_away(self, run: Run) -> None:
        """A run ends without its code: its host drops it."""
        host = run.host
        if host is not None:
            self._let_go(run, host)
            host.peer.send(frames.Forget(run.id))
        self._ledger.homeless.pop(run.id, None)
        self._release(run)

    def end(self, run: Run, state: str, payload: bytes) -> None:
        """Records what a run came to, and tells whoever watches it once that is on disk.

        The end of a child may be the end of its parent: that has its turn when this one is through, since a thousand of
        them inside one another would be too deep.
        """
        self._ends.append((run, state, payload))
        if len(self._ends) == 1:
            for one in self._ends:
                self._end(*one)
            self._ends.clear()

    def _end(self, run: Run, state: str, payload: bytes) -> None:
        self._ledger.change(run, RunState(state), payload)
        if self._sup.schedules.waiting:
            self._sup.schedules.ended(run)
        self._tell(run, payload)
        self._sup.publishing.news(run.id)
        if run.parent:
            parent = self._ledger.runs.get(run.parent)
            if parent is not None and parent.children is not None:
                parent.children.discard(run.id)
            status = STATUS.index(StepState(run.state))
            self.results.settle([(run.id, 0, run.function.id, b"")], None, status, payload)

    def _block(self, host: Member, id: int, reason: str) -> None:
        run = self._ledger.runs.get(id)
        if run is not None and run.host is host:
            self._let_go(run, host)
            self._ledger.change(run, RunState.BLOCKED, reason=reason)
            self._tell(run, reason.encode())
        else:
            self._scheduler.stale += 1

    def _tell(self, run: Run, payload: bytes) -> None:
        ended = frames.Ended(run.id, run.state, payload)
        self._committer.after_sync += [(peer, ended) for peer in run.watchers or ()]
        self._committer.eager = True
        run.watchers = None

    def _let_go(self, run: Run, host: Member) -> None:
        run.host = None
        host.runs.discard(run.id)
        if run.state == RunState.RUNNING and run.ending is None:
            self._ledger.homeless[run.id] = run

    def deliver(self) -> None:
        """Puts the turn's completions in the mail, one frame for each host."""
        for host, rows in self.deliveries.items():
            self._committer.after_sync.append((host.peer, frames.Deliver(rows)))
        self.deliveries.clear()

    def bereave(self, host: Member, running: int, death: Death) -> None:
        """Takes a dead host's runs back. The one whose code it was running is charged."""
        self.functions.pop(host, None)
        self.deliveries.pop(host, None)
        for id in list(host.runs):
            run = self._ledger.runs.get(id)
            if run is None:
                continue
            self._let_go(run, host)
            if id == running and not host.why.startswith("handed back"):
                self._charge(run, host, death)

    def _charge(self, run: Run, host: Member, death: Death) -> None:
        run.crashes += 1
        cause = f"{host.why}; the host {death}" if host.why else f"the host {death}"
        row = AttemptRow(run.id, run.crashes, 0, "crashed", host.pid, 1, cause, self._sup.clock.now())
        self._committer.group.attempts.append(row)
        self._committer.dirty = True
        if run.crashes >= run.function.max_crashes:
            from dq.crew.results import failure

            text = f"The workflow {run.function.name} killed its host {run.crashes} times. Last time {cause}."
            run.ending = (RunState.FAILED, failure(errors.StepCrashed(text)))
            self._ledger.homeless.pop(run.id, None)
            self._release(run)
            if not run.open and run.state == RunState.RUNNING:
                self.end(run, *run.ending)
