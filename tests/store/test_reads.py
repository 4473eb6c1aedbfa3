"""What the supervisor asks the file."""

from __future__ import annotations

import pytest

from dq.model.states import CANCELLED, COMPLETED, DEAD
from dq.store.group import Group, RunChange
from dq.store.reads import RunStep
from dq.store.store import Store
from tests.store import rows


def test_functions_and_contexts_come_back(store: Store) -> None:
    group = rows.functions()
    assert store.functions() == group.functions
    assert store.contexts() == group.contexts


def test_runs_are_found_by_name_and_by_id(store: Store) -> None:
    store.commit(rows.run(7, "movie-1 🎬"))
    record = store.find_run("movie-1 🎬")
    assert record is not None
    assert record == store.run_by_id(7)
    assert record[:6] == (7, "movie-1 🎬", 2, rows.ARGS, b"f" * 16, "running")
    assert store.find_run("movie-1") is None
    assert store.run_by_id(8) is None


def test_unfinished_runs_are_the_running_and_the_blocked(store: Store) -> None:
    for id, state in ((1, "completed"), (2, "running"), (3, "blocked"), (4, "cancelled"), (5, "failed")):
        store.commit(rows.run(id, f"run-{id}"))
        if state != "running":
            store.commit(rows.run_ends(id, state))
    assert [(run.id, run.state, run.reason) for run in store.unfinished_runs()] == [
        (2, "running", None),
        (3, "blocked", "why"),
    ]
    store.commit(Group(run_changes=[RunChange("running", None, None, None, 3, "blocked")]))
    assert [run.state for run in store.unfinished_runs()] == ["running", "running"]


def test_the_steps_of_a_run_come_in_order_and_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dq.store.reads._PAGE", 3)
    store.commit(rows.run(1, "movie-1"))
    store.commit(rows.flow_steps(1, range(2, 10)))
    store.commit(rows.results(0, [3], seq=1))
    steps = store.run_steps(1)
    first = next(steps)
    assert first == RunStep(2, 1, "0", 0, b"g" * 16, rows.ARGS, 0, -1, b"", 0)
    store.commit(rows.results(0, [9], "dead", seq=2))
    rest = list(steps)
    assert [step.id for step in rest] == list(range(3, 10))
    assert rest[0][6:] == (1, COMPLETED, rows.RESULT, rows.NOW + 7)
    assert rest[-1][6:] == (2, DEAD, rows.RESULT, rows.NOW + 7), "a page read later shows what was committed in between"
    assert store.run_progress(1) == (2, 8)
    assert store.run_progress(99) == (0, 0)


def test_numbers_of_delivery(store: Store) -> None:
    for run in (1, 2, 3):
        store.commit(rows.run(run, f"run-{run}"))
    store.commit(rows.flow_steps(1, [10, 11]))
    store.commit(rows.flow_steps(2, [12]))
    store.commit(rows.batch(20, 20))
    store.commit(rows.results(0, [11], seq=5))
    assert store.max_seqs() == {1: 5, 2: 0, 3: 0}
    assert store.next_seq(10) == 6
    assert store.next_seq(12) == 1
    assert store.next_seq(20) is None
    store.commit(rows.run_ends(1))
    assert store.max_seqs() == {2: 0, 3: 0}


def test_open_steps_of_a_batch(store: Store) -> None:
    store.commit(rows.run(1, "movie-1"))
    store.commit(rows.batch(2, 6))
    store.commit(rows.flow_steps(1, [7]))
    store.commit(rows.results(0, [3, 6]))
    assert store.open_batches() == [(2, 6)]
    assert store.open_steps(1, 9) == [(2, 1, rows.ARGS), (4, 1, rows.ARGS), (5, 1, rows.ARGS)]
    assert [row[0] for row in store.open_steps(1, 9, after=2)] == [4, 5]
    assert [row[0] for row in store.open_steps(4, 9, after=0)] == [4, 5]
    assert [row[0] for row in store.open_steps(2, 4)] == [2, 4]
    assert [row[0] for row in store.open_steps(1, 9, limit=1)] == [2]
    assert store.open_functions(1, 9) == [(1, 2, 5, 3)]
    assert store.open_functions(6, 9) == []
    store.commit(Group(closed_batches=[(2,)]))
    assert store.open_batches() == []


def test_open_steps_of_runs(store: Store) -> None:
    store.commit(rows.run(1, "running"))
    store.commit(rows.run(2, "done"))
    store.commit(rows.flow_steps(1, [3, 4, 5]))
    store.commit(rows.flow_steps(2, [6]))
    store.commit(rows.results(0, [3], seq=1))
    store.commit(rows.run_ends(2))
    assert store.open_flow_functions() == [(1, 1, 4, 5, 2)]
    assert store.open_flow_steps(1, 1, 0, 9) == [(4, 1, rows.ARGS), (5, 1, rows.ARGS)]
    assert [row[0] for row in store.open_flow_steps(1, 1, 4, 9, limit=7)] == [5]
    assert store.open_flow_steps(1, 2, 0, 9) == []


def test_results_tell_status_and_time(store: Store) -> None:
    store.commit(rows.batch(1, 4))
    store.commit(rows.results(0, [4], "cancelled"))
    store.commit(rows.results(0, [2]))
    assert store.results([4, 3, 2, 1]) == [
        (2, COMPLETED, rows.RESULT, rows.NOW + 5, 2000),
        (4, CANCELLED, rows.RESULT, rows.NOW + 5, 2000),
    ]
    assert store.results([]) == []
    assert store.known_steps([0, 1, 4, 5]) == {1, 4}


def test_claims_tell_their_steps(store: Store) -> None:
    token = rows.epoch(store, 3)
    store.commit(rows.batch(1, 2))
    store.commit(rows.claim(token, [1, 2], attempt=4))
    assert store.open_claims() == [(token, 0, 77, [(1, 4), (2, 4)])]
    assert store.step_function(1) == 1
    with pytest.raises(LookupError, match="no step 9"):
        store.step_function(9)


def test_attempts_are_counted_and_kept_as_evidence(store: Store) -> None:
    store.commit(rows.batch(1, 2))
    crashes = [
        rows.crash(1, rows.epoch(store, number), attempt, charged)
        for number, (attempt, charged) in enumerate([(1, 0), (1, 1), (2, 1)])
    ]
    for crash in crashes:
        store.commit(rows.claim(crash.attempts[0].epoch, [1], crash.attempts[0].attempt))
        store.commit(crash)
    assert store.attempts([1, 2]) == {1: (2, 2), 2: (0, 0)}
    assert store.attempt_causes(1) == [crash.attempts[0] for crash in crashes]
    assert store.attempt_causes(2) == []
