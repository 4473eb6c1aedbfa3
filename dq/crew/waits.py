"""What the supervisor itself ends: timers, waits for signals, and notes that nobody waits for.

Each is a step on record whose function stands under the executor "dq". A timer has its due time in the file, so that it
keeps it over restarts. A signal is in the file before its sender hears of it, and is taken by one wait: the oldest.
"""

from __future__ import annotations

import pickle
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from dq import errors
from dq.crew.results import failure
from dq.crew.targets import unfinished
from dq.executor import signing
from dq.executor.options import CHECKPOINT, PATCHED, PUBLISH, SEND_SIGNAL, SLEEP, WAIT_SIGNAL
from dq.model.payload import PICKLE, seal
from dq.model.states import CANCELLED, COMPLETED, FAILED
from dq.store.group import SignalRow, TermRow

if TYPE_CHECKING:
    from dq.crew.ledger import Function, Run
    from dq.crew.supervisor import Supervisor
    from dq.crew.timers import Entry
    from dq.executor.frames import Term

NOTHING = seal(PICKLE, pickle.dumps(None, 5))


class Wait(NamedTuple):
    run: Run
    topic: str  # the signal; "" for a timer
    alarm: Entry | None  # for its due time


class Waits:
    """Open waits and signals that nobody has taken."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._committer = supervisor.committer
        self._ledger = supervisor.ledger
        self._open: dict[int, Wait] = {}
        self._waiting: dict[tuple[int, str], dict[int, None]] = {}  # (run, signal) -> waits, oldest first
        self._signals: dict[int, dict[str, deque[SignalRow]]] = {}  # run -> name -> those that nobody has taken
        self._last = 0
        self._nothing = signing.sealed(signing.VALUE, NOTHING)
        self.cancelled = failure(errors.Cancelled("cancelled"))

    def load(self) -> None:
        """Takes up what an earlier supervisor has left. A signal that came in time wins over a time that is up."""
        store, runs = self._sup.store, self._ledger.runs
        self._last = store.last_signal()
        if not self._sup.options.workers:
            return  # this supervisor only takes down what others will do
        for signal in store.open_signals():
            self._keep(signal)
        for record in store.open_waits():
            run = runs[record.run]
            run.open += 1
            self._ledger.flow[record.step] = run
            name = self._ledger.functions[record.function].name
            self._begin(name, record.step, run, record.topic or "", record.due_at or 0)

    def take(self, function: Function, step: int, run: Run, term: Term | None, now: int) -> None:
        """A run asks for something that ends without a worker. Its row is in the group."""
        topic, due_at = "", 0
        if function.name == SEND_SIGNAL and term is not None:
            self._send(step, term)
            return
        if term is not None:
            topic = term.topic
            due_at = now + term.after if term.after else term.at
            self._committer.group.terms.append(TermRow(step, due_at or None, topic=topic or None))
        self._begin(function.name, step, run, topic, due_at)

    def _begin(self, name: str, step: int, run: Run, topic: str, due_at: int) -> None:
        if name == WAIT_SIGNAL:
            signals = self._signals.get(run.id, {}).get(topic)
            if signals and not (due_at and signals[0].sent_at > due_at):
                signal = signals.popleft()
                self._committer.group.taken_signals.append((step, signal.id))
                self._end(step, COMPLETED, signal.payload)
                return
            self._waiting.setdefault((run.id, topic), {})[step] = None
        elif name in (PUBLISH, CHECKPOINT) or name.startswith(PATCHED):
            if name == PUBLISH:
                self._sup.publishing.news(run.id)
            elif name == CHECKPOINT:
                self._committer.group.checkpoints.append((step, run.id))
            self._end(step, COMPLETED, self._nothing)
            return
        elif name != SLEEP:
            text = f"{name} is nothing that this version of dq can end"
            self._end(step, FAILED, failure(errors.DqError(text)))
            return
        alarm = self._sup.alarms.at(due_at, lambda: self._due(step)) if due_at else None
        self._open[step] = Wait(run, topic, alarm)
        run.waits = run.waits if run.waits is not None else set()
        run.waits.add(step)

    def _send(self, step: int, term: Term) -> None:
        """A run sends a signal to another: on record together with the step that asks for it."""
        try:
            self.signal(unfinished(self._sup, term.key, "signalled"), step, term.topic, term.data)
        except (errors.NoSuchRun, errors.RunEnded) as error:
            self._end(step, FAILED, failure(error))
        else:
            self._end(step, COMPLETED, self._nothing)

    def _due(self, step: int) -> None:
        wait = self._open.get(step)
        if wait is None:
            return
        self._drop(step, wait)
        if wait.topic:
            text = f"no signal {wait.topic!r} came to run {wait.run.name!r} in time"
            self._end(step, FAILED, failure(errors.SignalTimeout(text)))
        else:
            self._end(step, COMPLETED, self._nothing)

    def _drop(self, step: int, wait: Wait) -> None:
        del self._open[step]
        if wait.alarm is not None:
            self._sup.alarms.cancel(wait.alarm)
        if wait.run.waits is not None:
            wait.run.waits.discard(step)
        if wait.topic:
            waiting = self._waiting[wait.run.id, wait.topic]
            del waiting[step]
            if not waiting:
                del self._waiting[wait.run.id, wait.topic]

    def _end(self, step: int, status: int, payload: bytes) -> None:
        self._sup.results.settle([(step, 0, 0, b"")], None, status, payload)

    def cancel(self, step: int) -> bool:
        """Ends a wait that nobody wants any more; False where there is none."""
        wait = self._open.get(step)
        if wait is None:
            return False
        self._drop(step, wait)
        self._end(step, CANCELLED, self.cancelled)
        return True

    def signal(self, run: Run, key: int, name: str, payload: bytes) -> None:
        """A signal for a run that has not ended: to the wait that is there, or kept for the one that comes."""
        self._last += 1
        waiting = self._waiting.get((run.id, name))
        step = next(iter(waiting)) if waiting else None
        row = SignalRow(self._last, key, run.id, name, payload, self._sup.clock.now(), step)
        self._committer.group.signals.append(row)
        self._committer.dirty = True
        if step is None:
            self._keep(row)
        else:
            self._drop(step, self._open[step])
            self._end(step, COMPLETED, payload)

    def reserve(self, count: int) -> int:
        """The first of so many numbers for signals that somebody else writes down."""
        self._last += count
        return self._last - count + 1

    def forget(self, run: Run) -> None:
        """A run has ended: its waits end, and nobody will take its signals."""
        for step in list(run.waits or ()):
            self.cancel(step)
        self._signals.pop(run.id, None)

    def _keep(self, signal: SignalRow) -> None:
        self._signals.setdefault(signal.run, {}).setdefault(signal.name, deque()).append(signal)
