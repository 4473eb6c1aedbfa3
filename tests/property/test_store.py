"""Whatever happens to steps and runs, in whatever order, the file says the same as a few dictionaries.

Rules collect their rows in a group, as a supervisor does; a commit puts the group down. A kill forgets the group that
was not committed, so the model goes back to its last commit.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dq.errors import Fenced
from dq.model.states import RUN_FINAL, RUN_TRANSITIONS, STEP_FINAL, STEP_TRANSITIONS, RunState, StepState
from dq.store.group import AttemptRow, Group, RunChange
from dq.store.store import Boot, Store
from tests.store import rows

ENDS = sorted(STEP_TRANSITIONS[StepState.CLAIMED] & STEP_FINAL)
NUMBERS = st.integers(0, 1 << 30)


@dataclass
class Step:
    run: int | None
    state: StepState = StepState.PENDING
    seq: int | None = None
    epoch: int = 0
    tries: list[AttemptRow] = field(default_factory=list)


@dataclass
class Model:
    steps: dict[int, Step] = field(default_factory=dict)
    runs: dict[int, RunState] = field(default_factory=dict)
    claims: dict[int, dict[int, int]] = field(default_factory=dict)
    batches: dict[int, int] = field(default_factory=dict)
    next_id: int = 1
    epoch: int = 0

    def pick(self, state: StepState, number: int, count: int = 1) -> list[int]:
        ids = [id for id, step in self.steps.items() if step.state == state]
        return [ids[(number + n) % len(ids)] for n in range(min(count, len(ids)))]

    def max_seq(self, run: int) -> int:
        return max((step.seq or 0 for step in self.steps.values() if step.run == run), default=0)


class StoreMachine(RuleBasedStateMachine):
    """The real Store against the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="dq-property-"))
        self.path = self.folder / "f.db"
        self.store = Store.open(self.path)
        assert self.store.boot("boot-1") == Boot(1, False, False)
        self.store.commit(rows.functions())
        self.counter = 0
        self.model = Model(epoch=1)
        self.written = copy.deepcopy(self.model)
        self.group = Group()

    # What comes in.

    @rule(count=st.integers(1, 40))
    def submit(self, count: int) -> None:
        first = self.model.next_id
        self._leased(count)
        ids = range(first, first + count)
        self.group.batches.append((first, ids[-1]))
        self.group.steps += [(id, 1, rows.ARGS, rows.NOW) for id in ids]
        self.model.batches[first] = ids[-1]
        self.model.steps.update((id, Step(None)) for id in ids)

    @rule()
    def start(self) -> None:
        id = self._leased(1)
        self.group.runs += rows.run(id, f"run-{id}").runs
        self.model.runs[id] = RunState.RUNNING

    @precondition(lambda self: RunState.RUNNING in self.model.runs.values())
    @rule(number=NUMBERS, count=st.integers(1, 5))
    def ask(self, number: int, count: int) -> None:
        running = [id for id, state in self.model.runs.items() if state == RunState.RUNNING]
        run = running[number % len(running)]
        first = self._leased(count)
        for id in range(first, first + count):
            self.group.flow_steps.append((id, run, 1, "0.1", id, b"g" * 16, rows.ARGS, rows.NOW))
            self.model.steps[id] = Step(run)

    # What happens to steps.

    @precondition(lambda self: self.model.pick(StepState.PENDING, 0))
    @rule(number=NUMBERS, count=st.integers(1, 40))
    def claim(self, number: int, count: int) -> None:
        self.counter += 1
        epoch = self.model.epoch << 40 | self.counter
        held: dict[int, int] = {}
        for id in self.model.pick(StepState.PENDING, number, count):
            step = self.model.steps[id]
            step.state, step.epoch = StepState.CLAIMED, epoch
            held[id] = len(step.tries) + 1
        self.model.claims[epoch] = held
        self.group.claims.append((epoch, 3, 77, json.dumps(list(held.items())), rows.NOW))

    @precondition(lambda self: self.model.pick(StepState.CLAIMED, 0))
    @rule(number=NUMBERS, count=st.integers(1, 40), state=st.sampled_from(ENDS))
    def end(self, number: int, count: int, state: StepState) -> None:
        for id in self.model.pick(StepState.CLAIMED, number, count):
            epoch = self.model.steps[id].epoch
            self._ends(id, state, self.model.claims[epoch][id], epoch)
            self._close_if_settled(epoch)

    @precondition(lambda self: self.model.pick(StepState.PENDING, 0))
    @rule(number=NUMBERS, count=st.integers(1, 5))
    def cancel(self, number: int, count: int) -> None:
        for id in self.model.pick(StepState.PENDING, number, count):
            self._ends(id, StepState.CANCELLED, 0, 0)

    @precondition(lambda self: self.model.claims)
    @rule(number=NUMBERS, begun=st.integers(0, 3), charged=st.integers(0, 1))
    def crash(self, number: int, begun: int, charged: int) -> None:
        """A worker dies: what it had begun is recorded, the rest goes back as if nothing had been."""
        epoch = sorted(self.model.claims)[number % len(self.model.claims)]
        for id, attempt in self.model.claims[epoch].items():
            step = self.model.steps[id]
            if step.state is not StepState.CLAIMED or step.epoch != epoch:
                continue
            step.state = StepState.PENDING
            if begun:
                begun -= 1
                row = AttemptRow(id, attempt, epoch, "crashed", 77, charged, "signal 9", rows.NOW + epoch)
                self.group.attempts.append(row)
                step.tries.append(row)
        self._close(epoch)

    # What happens to runs.

    @precondition(lambda self: self.model.runs)
    @rule(number=NUMBERS, state=st.sampled_from(RunState))
    def change_run(self, number: int, state: RunState) -> None:
        id = sorted(self.model.runs)[number % len(self.model.runs)]
        before = self.model.runs[id]
        ended = rows.NOW if state in RUN_FINAL else None
        change = RunChange(state, ended, b"p", "why", id, before)
        if state in RUN_TRANSITIONS[before]:
            self.group.run_changes.append(change)
            self.model.runs[id] = state
        else:
            self.commit()
            with pytest.raises(ValueError, match="can't go"):
                self.store.commit(Group(run_changes=[change]))

    # What happens to the supervisor.

    @rule()
    def commit(self) -> None:
        self.store.commit(self.group)
        self.group = Group()
        self.written = copy.deepcopy(self.model)

    @rule(clean=st.booleans(), moved=st.booleans())
    def reboot(self, clean: bool, moved: bool) -> None:
        if clean:
            self.commit()
        self.group = Group()
        self.model = copy.deepcopy(self.written)
        boot_id = self.store._rows("engine")[0][1]
        self.store.close(clean=clean)
        self.store = Store.open(self.path)
        self.model.epoch += 1
        boot = self.store.boot(boot_id + "'" if moved else boot_id)
        assert boot == Boot(self.model.epoch, not clean, moved)
        self.written = copy.deepcopy(self.model)
        self._compare()

    @precondition(lambda self: any(step.state in STEP_FINAL for step in self.written.steps.values()))
    @rule(number=NUMBERS, state=st.sampled_from(sorted(STEP_FINAL)))
    def complete_again(self, number: int, state: StepState) -> None:
        """A late result changes nothing, and neither does anything that came with it."""
        ended = [id for id, step in self.written.steps.items() if step.state in STEP_FINAL]
        late = rows.results(0, [ended[number % len(ended)]], state)
        late.lease_to, late.steps = 10**9, [(10**9, 1, b"", 0)]
        with pytest.raises(Fenced):
            self.store.commit(late)

    @precondition(lambda self: self.written.epoch > 1)
    @rule()
    def come_back_from_the_dead(self) -> None:
        """A predecessor that still believes it owns the file."""
        ghost = Store.open(self.path)
        ghost._epoch = self.written.epoch - 1
        with pytest.raises(Fenced):
            ghost.commit(Group(lease_to=10**9))
        ghost.close(clean=False)

    @invariant()
    def the_file_is_as_written(self) -> None:
        assert self.store.next_id() == self.written.next_id

    def teardown(self) -> None:
        try:
            self.commit()
            self._compare()
            self.store.close(clean=True)
        finally:
            shutil.rmtree(self.folder)

    def _leased(self, count: int) -> int:
        first = self.model.next_id
        self.model.next_id = self.group.lease_to = first + count
        return first

    def _ends(self, id: int, state: StepState, attempt: int, epoch: int) -> None:
        step = self.model.steps[id]
        assert state in STEP_TRANSITIONS[step.state]
        step.state = state
        step.seq = None if step.run is None else self.model.max_seq(step.run) + 1
        row = (id, step.seq, str(state), attempt, epoch, 77, id, id + 2, b"p%d" % id)
        self.group.results.append(row)
        for first, last in self.model.batches.copy().items():
            if all(self.model.steps[one].state in STEP_FINAL for one in range(first, last + 1)):
                del self.model.batches[first]
                self.group.closed_batches.append((first,))

    def _close_if_settled(self, epoch: int) -> None:
        held = self.model.claims[epoch]
        if all(self.model.steps[id].epoch != epoch or self.model.steps[id].state in STEP_FINAL for id in held):
            self._close(epoch)

    def _close(self, epoch: int) -> None:
        del self.model.claims[epoch]
        self.group.closed_claims.append((epoch,))

    def _compare(self) -> None:
        """Everything that can be read, against the model."""
        model, store = self.model, self.store
        by_state = {state: [id for id, step in model.steps.items() if step.state == state] for state in StepState}
        ended = {id: step for id, step in model.steps.items() if step.state in STEP_FINAL}
        found = store.results(model.steps)
        assert [row.id for row in found] == sorted(ended)
        assert all((row.payload, row.began_at, row.busy) == (b"p%d" % row.id, row.id, 2000) for row in found)
        claims = store.open_claims()
        assert {claim.epoch: dict(claim.steps) for claim in claims} == model.claims
        claimed = {id for claim in claims for id, _ in claim.steps if model.steps[id].epoch == claim.epoch}
        assert claimed - set(ended) >= set(by_state[StepState.CLAIMED])
        assert dict(store.open_batches()) == model.batches
        alone = [id for id, step in model.steps.items() if step.run is None and id not in ended]
        assert [row[0] for row in store.open_steps(0, model.next_id, limit=10_000)] == alone
        assert {run.id: run.state for run in store.unfinished_runs()} == {
            id: state for id, state in model.runs.items() if state not in RUN_FINAL
        }
        for id, state in model.runs.items():
            record = store.run_by_id(id)
            assert record is not None
            assert record.state == state
            mine = {step_id: step for step_id, step in model.steps.items() if step.run == id}
            assert [(step.id, step.seq) for step in store.run_steps(id)] == [(n, s.seq or 0) for n, s in mine.items()]
            assert store.run_progress(id) == (len(mine.keys() & ended.keys()), len(mine))
        assert store.max_seqs() == {id: model.max_seq(id) for id, s in model.runs.items() if s not in RUN_FINAL}
        self._compare_attempts()

    def _compare_attempts(self) -> None:
        expected = {
            id: (max((row.attempt for row in step.tries), default=0), sum(row.charged for row in step.tries))
            for id, step in self.model.steps.items()
        }
        assert self.store.attempts(self.model.steps) == expected
        for id, step in self.model.steps.items():
            if step.tries:
                assert self.store.attempt_causes(id) == step.tries


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=30, stateful_step_count=40)
