"""A group is written whole or not at all, and only by the supervisor that owns the file."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dq import errors
from dq.store.bulk import WIDTH
from dq.store.group import Group, RunChange
from dq.store.store import CHECKPOINT_PAGES, LOG_SIZE, Store
from tests.store import rows
from tests.store.mounts import remount, tmpfs


def _merged(*groups: Group) -> Group:
    whole = Group()
    for group in groups:
        whole.lease_to = max(whole.lease_to, group.lease_to)
        for name in group.__slots__:
            if name != "lease_to":
                getattr(whole, name).extend(getattr(group, name))
    return whole


def test_a_whole_life_in_one_group(store: Store) -> None:
    token = rows.epoch(store, 1)
    store.commit(
        _merged(
            rows.batch(1, 3),
            rows.claim(token, [1, 2, 3]),
            rows.results(token, [1, 2, 3]),
            Group(closed_batches=[(1,)]),
            rows.run(4, "movie-1"),
            rows.flow_steps(4, [5]),
            rows.results(0, [5], "cancelled", seq=1, attempt=0),
            rows.run_ends(4),
        )
    )
    assert [row.id for row in store.results([1, 2, 3, 5])] == [1, 2, 3, 5]
    assert store.open_claims() == []
    assert store.open_batches() == []
    record = store.run_by_id(4)
    assert record is not None
    assert (record.state, record.ended_at, record.payload) == ("completed", rows.NOW + 9, rows.RESULT)
    assert store.next_id() == 6


@pytest.mark.parametrize("count", [1, WIDTH - 1, WIDTH, WIDTH + 1, 5 * WIDTH])
def test_every_row_arrives_whatever_their_number(store: Store, count: int) -> None:
    token = rows.epoch(store, 1)
    group = _merged(rows.batch(1, count), rows.claim(token, range(1, count + 1)))
    group.results = [
        (id, None, "completed", 1, token, id % 9, id + 10, id + 20, b"p%d" % id) for id in range(1, count + 1)
    ]
    store.commit(group)
    expected = [(id, 0, b"p%d" % id, id + 10, 10_000) for id in range(1, count + 1)]
    assert store.results(range(1, count + 1)) == expected


def test_a_second_completion_is_impossible(store: Store) -> None:
    first, second = rows.epoch(store, 1), rows.epoch(store, 2)
    store.commit(_merged(rows.batch(1, 2), rows.claim(first, [1]), rows.claim(second, [1, 2])))
    store.commit(rows.results(first, [1]))
    with pytest.raises(errors.Fenced, match="there already"):
        store.commit(rows.results(second, [2, 1]))
    assert [row.id for row in store.results([1, 2])] == [1], "nothing of the refused group is written"
    assert [claim.epoch for claim in store.open_claims()] == [second]


def test_a_result_under_a_closed_claim_is_refused(store: Store) -> None:
    token = rows.epoch(store, 1)
    store.commit(_merged(rows.batch(1, 1), rows.claim(token, [1])))
    store.commit(rows.crash(1, token))
    with pytest.raises(errors.Fenced, match="not open"):
        store.commit(replace(rows.results(token, [1]), closed_claims=[]))
    with pytest.raises(errors.Fenced, match="not as expected"):
        store.commit(rows.results(token, [1]))
    assert store.results([1]) == []


def test_parts_of_a_claim_may_come_one_by_one(store: Store) -> None:
    token = rows.epoch(store, 1)
    store.commit(_merged(rows.batch(1, 2), rows.claim(token, [1, 2])))
    store.commit(replace(rows.results(token, [1]), closed_claims=[]))
    store.commit(rows.results(token, [2]))
    assert len(store.results([1, 2])) == 2


@pytest.mark.parametrize(
    "group",
    [
        Group(closed_batches=[(5,)]),
        Group(closed_claims=[(1 << 40 | 9,)]),
        Group(run_changes=[RunChange("running", None, None, None, 1, "blocked")]),
        rows.run(1, "movie-1"),
        rows.batch(2, 2),
        rows.functions(),
        Group(claims=[(1 << 40 | 1, 0, 1, "[]", 0)]),
    ],
    ids=["batch", "claim", "run", "run again", "step again", "function again", "claim again"],
)
def test_what_is_not_as_expected_is_refused_as_a_whole(store: Store, group: Group) -> None:
    store.commit(_merged(rows.run(1, "movie-1"), rows.batch(2, 4), rows.claim(rows.epoch(store, 1), [2])))
    with pytest.raises(errors.Fenced):
        store.commit(_merged(rows.batch(100, 100 + 2 * WIDTH), group))
    assert store.open_batches() == [(2, 4)]
    assert not store.known_steps(range(100, 200))
    store.commit(rows.batch(100, 101))


def test_a_state_that_does_not_exist_is_refused(store: Store) -> None:
    store.commit(rows.batch(1, 1))
    with pytest.raises(errors.Fenced, match="result_state"):
        store.commit(rows.results(0, [1], "wonderful", attempt=0))


@pytest.mark.parametrize(
    ("expected", "state"), [("running", "running"), ("completed", "running"), ("blocked", "completed")]
)
def test_a_change_that_no_run_makes_is_refused(store: Store, expected: str, state: str) -> None:
    store.commit(rows.run(1, "movie-1"))
    with pytest.raises(ValueError, match="can't go from"):
        store.commit(_merged(rows.batch(2, 2), rows.run_ends(1, state, expected)))
    assert store.open_batches() == []
    store.commit(rows.run_ends(1))


def test_a_successor_fences_its_predecessor(store: Store, path: str) -> None:
    store.commit(_merged(rows.batch(1, 1), rows.claim(rows.epoch(store, 1), [1])))
    successor = Store.open(path)
    assert successor.boot("boot-1").unclean
    with pytest.raises(errors.Fenced, match="another supervisor"):
        store.commit(rows.results(rows.epoch(store, 1), [1]))
    with pytest.raises(errors.Fenced):
        store.close(clean=True)
    (claim,) = successor.open_claims()
    assert claim.epoch == rows.epoch(store, 1)
    successor.commit(rows.crash(1, claim.epoch))
    assert successor.open_claims() == []
    successor.close(clean=True)


def test_a_store_that_has_not_booted_writes_nothing(path: str) -> None:
    store = Store.open(path)
    with pytest.raises(errors.Fenced):
        store.commit(rows.functions())
    store.close(clean=False)


def test_ids_are_never_given_out_twice(store: Store, path: str) -> None:
    store.commit(Group(lease_to=500))
    store.commit(Group(lease_to=20))
    assert store.next_id() == 500
    again = Store.open(path)
    assert again.next_id() == 500
    again.close(clean=False)


def test_another_process_may_not_touch_it(store: Store) -> None:
    store._pid += 1
    for call in (
        lambda: store.commit(Group()),
        store.sync,
        store.checkpoint,
        store.functions,
        lambda: store.close(True),
    ):
        with pytest.raises(errors.StoreError, match="must open its own"):
            call()
    store._pid -= 1


def test_a_closed_store_says_so(store: Store) -> None:
    store.close(clean=True)
    store.close(clean=True)
    for call in (lambda: store.commit(Group()), store.sync, store.open_claims):
        with pytest.raises(errors.StoreError, match="is closed"):
            call()


def test_a_sync_may_run_beside_commits(store: Store) -> None:
    failed: list[errors.StoreError] = []
    stop = threading.Event()

    def sync() -> None:
        try:
            while not stop.is_set():
                store.sync()
        except errors.StoreError as error:
            failed.append(error)

    thread = threading.Thread(target=sync)
    thread.start()
    for number in range(200):
        store.commit(rows.batch(number * 50 + 1, number * 50 + 50))
    stop.set()
    thread.join()
    assert not failed
    assert len(store.open_batches()) == 200


def test_the_log_is_emptied_before_it_outgrows_its_grown_part(store: Store, path: str) -> None:
    assert store.pregrow() is True
    assert store.pregrow() is False
    big = b"p" * 100_000
    for id in range(1, 700):
        store.commit(Group(steps=[(id, 1, big, rows.NOW)]))
        assert store._pages <= CHECKPOINT_PAGES + 20
    assert os.path.getsize(path + "-wal") == LOG_SIZE
    store.checkpoint()
    assert os.path.getsize(path) > 60_000_000


def test_a_reader_that_holds_the_log_stops_nobody(store: Store, path: str) -> None:
    reader = Store.open(path)
    reader._opened.execute("begin")
    assert reader.next_id() == 1
    big = b"p" * 1_000_000
    for id in range(1, 40):
        store.commit(Group(lease_to=id + 1, steps=[(id, 1, big, rows.NOW)]))
    assert reader.next_id() == 1
    assert store._checkpoint_at > CHECKPOINT_PAGES
    reader.close(clean=False)
    store.checkpoint()
    assert store._checkpoint_at == CHECKPOINT_PAGES
    store.commit(Group())
    assert store._pages < 10


def test_growing_does_no_harm_to_what_is_committed(store: Store, path: str) -> None:
    store.commit(rows.batch(1, 1000))
    store.pregrow()
    store.commit(rows.batch(1001, 2000))
    store.close(clean=False)
    again = Store.open(path)
    assert again.open_batches() == [(1, 1000), (1001, 2000)]
    assert len(again.open_steps(1, 2000, limit=5000)) == 2000
    again.close(clean=False)


def test_a_full_disk_loses_nothing_and_is_got_over(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", "size=600k") as folder:
        store = Store.open(folder / "f.db")
        store.boot("boot-1")
        store.commit(rows.functions())
        assert store.pregrow() is False
        last, refused = _fill(store)
        with pytest.raises(errors.DiskFull):
            store.commit(refused)
        assert len(store.open_steps(1, last, limit=10_000)) == last
        remount(folder, "size=8m")
        store.commit(refused)
        store.close(clean=True)
        again = Store.open(folder / "f.db")
        assert len(again.open_steps(1, last + 50, limit=10_000)) == last + 50
        again.close(clean=True)


def _fill(store: Store) -> tuple[int, Group]:
    """The last id that found room, and the group that did not."""
    for first in range(1, 10_000, 50):
        group = rows.batch(first, first + 49)
        try:
            store.commit(group)
        except errors.DiskFull:
            return first - 1, group
    raise AssertionError("the disk never got full")
