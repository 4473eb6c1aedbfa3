"""What was acknowledged is in the file, wherever the writer is killed and whichever call of the disk fails."""

from __future__ import annotations

import itertools
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from dq import errors
from dq.store.store import Store
from tests.store import tracing, writer
from tests.sweeps import tally

GROUPS = 3
SHARDS = 4
KILLS = "kills at system calls"
pytestmark = pytest.mark.usefixtures("strace")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose last supervisor was killed: its log is full of commits that nobody synced."""
    folder = tmp_path_factory.mktemp("begun")
    store = Store.open(folder / "f.db")
    store.boot("boot-1")
    store.close(clean=False)
    return folder


def _copy(begun: Path, folder: Path) -> Path:
    for name in ("f.db", "f.db-wal"):
        shutil.copy(begun / name, folder / name)
    return folder


def _check(folder: Path) -> None:
    """All acknowledged groups are there, at most one more is, and each is whole."""
    acknowledged = tracing.acked(folder)
    store = Store.open(folder / "f.db")
    try:
        epoch = store._rows("engine")[0][0]
        store.boot("boot-1")
        present = [first for first, _ in store.open_batches()]
        assert present[: len(acknowledged)] == acknowledged
        assert len(present) <= len(acknowledged) + 1
        for first in present:
            ids = range(first, first + writer.ROWS)
            assert store.known_steps(ids) == set(ids)
            assert [row.id for row in store.results(ids)] == list(ids)
        # What a user's statement did is there where its group is, and nowhere else.
        tables = store._opened.execute("SELECT name FROM sqlite_schema WHERE name = 'effect'").fetchall()
        effects = store._opened.execute("SELECT first FROM effect ORDER BY first").fetchall() if tables else []
        assert [first for (first,) in effects] == present
        assert store.open_claims() == []
        assert store._opened.pragma("integrity_check") == "ok"
        told = [line for line in _lines(folder / "acks") if line.startswith("boot")]
        assert not told or int(told[-1].split()[1]) == epoch
    finally:
        store.close(clean=True)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _points(folder: Path) -> list[tuple[str, int]]:
    """Each system call that writes, as (name, how-manieth of that name), of an undisturbed run."""
    done = tracing.run(folder, GROUPS, "-e", f"trace={','.join(tracing.CALLS)}")
    assert done.returncode == 0, done.stderr
    return [
        (name, n + 1)
        for name, count in Counter(name for name, _ in tracing.calls(folder)).items()
        for n in range(count)
    ]


def test_nothing_is_acknowledged_before_it_is_synced(begun: Path, tmp_path: Path) -> None:
    done = tracing.run(_copy(begun, tmp_path), GROUPS, "-e", f"trace={','.join(tracing.CALLS)}")
    assert done.returncode == 0, done.stderr
    calls = tracing.calls(tmp_path)
    acks = [index for index, call in enumerate(calls) if call == ("write", "acks")]
    assert len(acks) == GROUPS + 1
    for index in acks:
        assert calls[index - 1] == ("fdatasync", "f.db-wal")
    for before, ack in itertools.pairwise(acks):
        written = [call for call in calls[before:ack] if call == ("pwrite64", "f.db-wal")]
        assert written, "a commit writes to the log"


def test_a_recovered_log_is_synced_before_anything_else(begun: Path, tmp_path: Path) -> None:
    """It is written anew as it is, since the kernel may take for written what a failed sync has left, and synced."""
    tracing.run(_copy(begun, tmp_path), 0, "-e", f"trace={','.join(tracing.CALLS)}")
    about_the_file = [call for call in tracing.calls(tmp_path) if call[1] in {"f.db", "f.db-wal"}]
    first = about_the_file.index(("fdatasync", "f.db-wal"))
    assert first > 0
    assert set(about_the_file[:first]) == {("pwrite64", "f.db-wal")}
    (tmp_path / "twice").mkdir()
    before = (_copy(begun, tmp_path / "twice") / "f.db-wal").read_bytes()
    store = Store.open(tmp_path / "twice" / "f.db")
    store._renew_log()
    assert (tmp_path / "twice" / "f.db-wal").read_bytes() == before
    store.close(clean=False)


@pytest.mark.parametrize(
    "shard", [0, *(pytest.param(n, marks=pytest.mark.soak, id=f"soak-{n}") for n in range(SHARDS))]
)
def test_killed_at_each_call(begun: Path, tmp_path: Path, shard: int) -> None:
    (tmp_path / "plain").mkdir()
    began = time.monotonic()
    points = _points(_copy(begun, tmp_path / "plain"))
    assert len(points) > 40
    for name, number in points[shard::SHARDS]:
        folder = tmp_path / f"{name}-{number}"
        folder.mkdir()
        done = tracing.run(
            _copy(begun, folder), GROUPS, "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"
        )
        assert done.returncode == -signal.SIGKILL, f"{name} {number}: {done.returncode} {done.stderr}"
        _check(folder)
    tally(KILLS, len(points[shard::SHARDS]), seeds="every call", began=began, lost=0, repeated=0)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.soak)])
def test_killed_while_the_file_is_made(tmp_path: Path, every: int) -> None:
    began = time.monotonic()
    (tmp_path / "plain").mkdir()
    points = _points(tmp_path / "plain")
    first_boot = [point for point in points if point[0] != "write"]
    for name, number in first_boot[::every]:
        folder = tmp_path / f"{name}-{number}"
        folder.mkdir()
        tracing.run(folder, 1, "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
        _check(folder)
    tally(KILLS, len(first_boot[::every]), seeds="every call", began=began, lost=0, repeated=0)


@pytest.mark.parametrize("share", [12, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", ["fdatasync", "pwrite64"])
def test_a_failing_disk_is_never_trusted(begun: Path, tmp_path: Path, name: str, share: int) -> None:
    began = time.monotonic()
    (tmp_path / "plain").mkdir()
    points = [point for point in _points(_copy(begun, tmp_path / "plain")) if point[0] == name]
    points = points[:: min(share, 2) if name == "fdatasync" else share]
    for _, number in points:
        folder = tmp_path / f"{name}-{number}"
        folder.mkdir()
        done = tracing.run(
            _copy(begun, folder), GROUPS, "-e", f"trace={name}", "-e", f"inject={name}:error=EIO:when={number}"
        )
        assert done.returncode in {0, 3}, done.stderr
        if name == "fdatasync" and done.returncode == 0:
            # The only sync whose failure may pass is one after the last acknowledgement.
            assert len(tracing.acked(folder)) == GROUPS
        _check(folder)
    tally("I/O errors at system calls", len(points), seeds="every call", began=began, lost=0, wrong=0)


def test_after_a_failed_sync_every_call_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "f.db")
    store.boot("boot-1")
    monkeypatch.setattr(store._wal, "_sync", lambda *_: 1034)
    with pytest.raises(errors.StoreError, match="can't be synced"):
        store.sync()
    monkeypatch.undo()
    for call in (store.sync, store.next_id, store.checkpoint):
        with pytest.raises(errors.StoreError, match="can't be synced"):
            call()
    before = (tmp_path / "f.db").read_bytes()
    store.close(clean=True)
    assert (tmp_path / "f.db-wal").exists()
    assert (tmp_path / "f.db").read_bytes() == before, "what is on disk is left as it is"
