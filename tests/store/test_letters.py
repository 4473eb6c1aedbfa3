"""Which steps and runs are dead letters, and what is known of those that somebody has dealt with."""

from __future__ import annotations

from itertools import chain

import pytest

from dq.store import letters
from dq.store.group import Group, LetterRow, RunRow
from dq.store.store import Store
from tests.store import rows
from tests.store.test_purges import ended


def lines(store: Store) -> dict[int, str]:
    return {line.id: line.state for line in chain(*store.letters())}


def failed_run(store: Store, id: int, parent: int | None = None) -> None:
    store.commit(
        Group(lease_to=id + 1, runs=[RunRow(id, f"run-{id}", 2, rows.ARGS, b"f" * 16, rows.NOW, parent=parent)])
    )
    store.commit(rows.run_ends(id, "failed"))


def test_what_ended_badly_is_a_letter(store: Store) -> None:
    ended(store, range(1, 3))
    ended(store, range(3, 5), "failed")
    ended(store, range(5, 6), "dead")
    ended(store, range(6, 7), "cancelled")
    failed_run(store, 10)
    assert lines(store) == {3: "open", 4: "open", 5: "open", 10: "open"}


def test_a_step_of_a_run_that_failed_is_its_run_s_affair_unless_it_is_dead(store: Store) -> None:
    store.commit(rows.run(1, "a"))
    store.commit(rows.flow_steps(1, [2, 3]))
    store.commit(rows.results(0, [2], "failed", seq=1))
    store.commit(rows.results(0, [3], "dead", seq=2))
    assert lines(store) == {3: "open"}


def test_a_child_run_that_failed_is_its_parent_s_affair_unless_nobody_waited_for_it(store: Store) -> None:
    store.commit(rows.run(1, "a"))
    store.commit(rows.flow_steps(1, [2, 3]))
    failed_run(store, 2, parent=1)
    store.commit(rows.results(0, [2], "failed", seq=1))
    failed_run(store, 3, parent=1)
    store.commit(rows.results(0, [3], "failed", seq=None))
    assert lines(store) == {3: "open"}


def test_a_dead_step_is_dealt_with_together_with_its_run(store: Store) -> None:
    store.commit(rows.run(1, "a"))
    store.commit(rows.flow_steps(1, [2]))
    store.commit(rows.results(0, [2], "dead", seq=1))
    store.commit(rows.run_ends(1, "failed"))
    assert lines(store) == {2: "open", 1: "open"}
    store.commit(Group(letters=[LetterRow(1, "retried", 77, rows.NOW)]))
    assert lines(store) == {2: "retried", 1: "retried"}
    assert store.letter(1) == ("retried", 77)
    assert store.letter(2) is None


def test_all_pages_are_walked_newest_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "PAGE", 2)
    ended(store, range(1, 6), "failed")
    ended(store, range(70_000, 70_002), "dead")
    assert list(lines(store)) == [70_001, 70_000, 5, 4, 3, 2, 1]
