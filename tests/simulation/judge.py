"""What must hold in every history, noted as it happens and looked at once more at the end."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from dq.crew.recovery import MACHINE
from dq.executor.options import SLEEP, WAIT_SIGNAL
from dq.model.states import STATUS
from tests.simulation.hosts import BUILTINS
from tests.simulation.workers import outcome

if TYPE_CHECKING:
    from tests.simulation.world import World


class Wrong(BaseException):
    """Something happened that must never happen; not an Exception, since the supervisor outlives those of its guests."""


class Judge:
    """See the module."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.recorded: set[int] = set()  # steps whose results are in the file
        self.acked: dict[int, tuple[str, bytes]] = {}  # steps submitted alone: function, arguments
        self.runs: dict[str, bytes] = {}  # acknowledged
        self.results: dict[int, tuple[int, bytes]] = {}  # told to clients
        self.run_ends: dict[str, tuple[str, bytes]] = {}
        self.signals: Counter[tuple[str, bytes]] = Counter()  # acknowledged
        self.cancelled: set[str] = set()
        self.sleeps: set[int] = set()
        self.host_died_in: set[int] = set()
        self.begun: set[tuple[int, int]] = set()
        self.bodies = 0
        self._inside: dict[int, tuple[str, int]] = {}  # step -> function, pid
        self._sending: dict[int, list[list[int]]] = {}  # pid -> [step, bytes ahead of its end]
        self._passed_on: dict[int, int] = {}  # step -> boot in which its result was sent whole
        self._epochs: dict[int, int] = {}
        self._highest = 0
        self._deliveries: dict[int, bytes] = {}

    def wrong(self, text: str) -> None:
        raise Wrong(text)

    def claimed(self, epoch: int, rows: list[tuple[int, int, int, bytes]], pid: int) -> None:
        self.world.trace("claim", epoch, [row[:2] for row in rows], pid)
        for row in rows:
            if epoch <= self._epochs.get(row[0], 0):
                self.wrong(f"the epoch of step {row[0]} does not rise: {epoch}")
            self._epochs[row[0]] = epoch

    def begins(self, name: str, step: int, epoch: int, pid: int) -> None:
        self.world.trace("begin", step, epoch, pid)
        if step in self.recorded:
            self.wrong(f"step {step} has a result and begins again")
        if step in self._inside:
            self.wrong(f"step {step} begins in {pid} while {self._inside[step][1]} is in it")
        if self._passed_on.get(step) == self.world.boots:
            self.wrong(f"step {step} begins again, though its result was sent whole to this supervisor")
        self._inside[step] = name, pid
        self.begun.add((step, epoch))
        self.bodies += 1
        limit = self.world.limits.get(name)
        self.world.sometimes["a queue was full"] += sum(inside == name for inside, _ in self._inside.values()) == limit
        if limit and sum(inside == name for inside, _ in self._inside.values()) > limit:
            self.wrong(f"more than {limit} steps of {name} run at once")

    def effect(self, step: int) -> None:
        self.world.trace("effect", step)

    def stops(self, step: int) -> None:
        self._inside.pop(step, None)

    def sending(self, pid: int, step: int, end: int) -> None:
        self._sending.setdefault(pid, []).append([step, end])

    def sent(self, pid: int, count: int) -> None:
        waiting = self._sending.get(pid, [])
        for one in waiting:
            one[1] -= count
        while waiting and waiting[0][1] <= 0:
            self._passed_on[waiting.pop(0)[0]] = self.world.boots

    def written(self, group: Any) -> None:
        """A group is about to be committed."""
        now = self.world.clock.now()
        for epoch, *_ in group.claims:
            if epoch <= self._highest:
                self.wrong(f"the claim {epoch} comes after {self._highest}")
            self._highest = epoch
        due = self.world.dues
        due.update({term.step: term.due_at for term in group.terms if term.due_at})
        for step, _, state, *_ in group.results:
            self.world.sometimes["a timer fired"] += step in self.sleeps and state == "completed"
            if step in self.sleeps and state == "completed" and now < due[step]:
                self.wrong(f"the timer {step} is early by {due[step] - now} microseconds")

    def delivered(self, run: int, step: int, payload: bytes) -> None:
        self.world.trace("deliver", run, step, payload)
        if self._deliveries.setdefault(step, payload) != payload:
            self.wrong(f"step {step} of run {run} has two results")

    def told(self, step: int, status: int, payload: bytes) -> None:
        if self.results.setdefault(step, (status, payload)) != (status, payload):
            self.wrong(f"a client is told two results of step {step}")

    def at_the_end(self) -> None:
        """All is over: what the file says is held against what was asked for and what was seen."""
        rows = self.world.rows
        results = {id: (state, payload) for id, state, payload in rows("SELECT step, state, payload FROM dq_result")}
        charged: Counter[int] = Counter()
        for step, epoch, flag, cause in rows("SELECT step, epoch, charged, cause FROM dq_attempt"):
            charged[step] += flag
            known = (step, epoch) in self.begun if epoch else step in self.host_died_in
            known = (
                known or cause == MACHINE
            )  # what a lost machine had begun nobody knows: twice claimed there is charged
            if flag and not known:
                self.wrong(f"step {step} is charged under {epoch}, and had not begun")
        for step, (name, args) in self.acked.items():
            if step not in results:
                self.wrong(f"step {step} was acknowledged and has no result")
            self._compare(step, results[step], outcome(name, args), charged[step])
        for step, (status, payload) in self.results.items():
            if results.get(step) != (str(STATUS[status]), payload):
                self.wrong(f"a client was told {payload!r} of step {step}; the file says {results.get(step)}")
        self._runs(results, charged)

    def _compare(self, step: int, found: tuple[str, bytes], due: tuple[int, bytes], charged: int) -> None:
        state, payload = found
        if state == "dead":
            if charged < 3:
                self.wrong(f"step {step} is dead after {charged} charged crashes")
            self.world.sometimes["a step was given up"] += 1
        elif state == "cancelled":
            self.world.sometimes["a step was cancelled"] += 1
        elif (state, payload) != (str(STATUS[due[0]]), due[1]):
            self.wrong(f"step {step} came to {state} {payload!r}, which should be {due}")

    def _runs(self, results: dict[int, tuple[str, bytes]], charged: Counter[int]) -> None:
        rows = self.world.rows
        steps: dict[int, dict[str, list[int]]] = {}
        args: dict[int, tuple[str, bytes]] = {}
        for id, run, name, told in rows(
            "SELECT s.id, s.run, f.name, s.args FROM dq_step s JOIN dq_function f ON f.id = s.function "
            "WHERE s.run IS NOT NULL ORDER BY s.run, f.name, s.occurrence"
        ):
            steps.setdefault(run, {}).setdefault(name, []).append(id)
            args[id] = name, told
            if id not in results:
                self.wrong(f"step {id} of run {run} has no result")
            if name not in (SLEEP, WAIT_SIGNAL):
                self._compare(id, results[id], outcome(name, told), charged[id])
        ends = {name: row for name, *row in rows("SELECT name, id, state, payload FROM dq_run")}
        for name in self.runs:
            if name not in ends:
                self.wrong(f"run {name} was acknowledged and is not there")
            id, state, payload = ends[name]
            if state not in ("completed", "failed", "cancelled"):
                self.wrong(f"run {name} has not ended: {state}")
            if state == "completed":
                self._values(name, json.loads(payload), results, steps.get(id, {}))
            elif name not in self.cancelled and charged[id] < 3:
                self.wrong(f"run {name} is {state} {payload!r} for no reason")
        for name, told in self.run_ends.items():
            if (ends[name][1], ends[name][2]) != told and told[0] != "cancelled":
                self.wrong(f"a client was told {told} of run {name}; the file says {ends[name][1:]}")
        taken = Counter((name, payload) for name, payload in rows(
            "SELECT r.name, s.payload FROM dq_signal s JOIN dq_run r ON r.id = s.run"))  # fmt: skip
        if any(taken[key] != 1 for key in self.signals):
            self.wrong("a signal that was acknowledged is not there once")

    def _values(
        self, name: str, values: list[str], results: dict[int, tuple[str, bytes]], steps: dict[str, list[int]]
    ) -> None:
        """What a run returned is what its program makes of the results on record."""
        known = {name: iter(ids) for name, ids in steps.items()}
        due: list[str] = []
        for asked in json.loads(self.runs[name]):
            for kind, _ in asked:
                due.append(results[next(known[BUILTINS.get(kind) or kind])][1].hex())
        if values != due:
            self.wrong(f"run {name} returned {values}, which should be {due}")
