"""A file of an earlier version becomes one of this version, whole, with all that is in it; or stays as it was."""

from __future__ import annotations

import pickle
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from dq import errors
from dq.model.payload import PICKLE, unseal
from dq.store import migrate, sql
from dq.store.reader import Reader
from dq.store.store import Store
from tests.store import tracing

FILES = Path(__file__).parent / "files"
KILLS = 6  # places in the middle of an upgrade

Schema = dict[str, Any]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """One run that has ended, five steps alone, and one run that has not ended: made by the first version."""
    return Path(shutil.copy(FILES / "schema-1.db", tmp_path / "f.db"))


def _look(path: Path) -> apsw.Connection:
    """Opens a file for reading. The one that every test copies is left without anything beside it."""
    options = "mode=ro&immutable=1" if path.parent == FILES else "mode=ro"
    return apsw.Connection(f"file:{path}?{options}", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def schema(path: Path) -> Schema:
    """What a file consists of, whatever the text was that made it."""
    db = _look(path)
    try:
        found: Schema = {"version": db.pragma("user_version")}
        rows: list[Any] = db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
        for kind, name, text in rows:
            if kind == "table":
                found[name] = db.execute(f"SELECT * FROM pragma_table_xinfo('{name}') ORDER BY cid").fetchall()
                found[f"{name}, strict"] = db.execute("SELECT strict, wr FROM pragma_table_list(?)", (name,)).fetchall()
            elif kind == "index":
                columns = db.execute("SELECT seqno, name FROM pragma_index_info(?)", (name,)).fetchall()
                found[name] = columns, " ".join((text or "").split())
            else:
                found[name] = text
        return found
    finally:
        db.close()


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    path = tmp_path_factory.mktemp("new") / "f.db"
    Store.open(path).close(clean=True)
    return schema(path)


def sorted_columns(found: Schema) -> Schema:
    """A column that was added later stands last, which nothing may depend on: statements name their columns."""
    return {
        name: sorted(tuple(column[1:]) for column in value) if isinstance(value, list) and len(value[0]) > 2 else value
        for name, value in found.items()
    }


@pytest.fixture
def opened(old: Path) -> Iterator[Store]:
    store = Store.open(old)
    yield store
    store.close(clean=False)


def test_an_old_file_gets_the_schema_of_a_new_one(old: Path, new: Schema, opened: Store) -> None:
    assert schema(FILES / "schema-1.db")["version"] == 1
    assert sorted_columns(schema(old)) == sorted_columns(new)
    assert opened._opened.pragma("integrity_check") == "ok"
    assert len(opened.salt()) == 32, "every file has its own"


def test_the_constraints_of_tables_that_are_made_anew_are_the_same(tmp_path: Path, old: Path, opened: Store) -> None:
    """Columns do not tell of CHECKs, so the texts of tables that a migration makes are compared, comments aside."""
    Store.open(tmp_path / "new.db").close(clean=True)
    before, upgraded, fresh = (_texts(path) for path in (FILES / "schema-1.db", old, tmp_path / "new.db"))
    made = upgraded.keys() - before.keys()
    assert made
    assert {name: upgraded[name] for name in made} == {name: fresh[name] for name in made}


def _texts(path: Path) -> dict[str, str]:
    db = _look(path)
    try:
        found: list[Any] = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
    finally:
        db.close()
    return {name: _plain(text) for name, text in found}


def _plain(text: str) -> str:
    """A statement without its comments, on one line."""
    return " ".join(" ".join(line.partition("--")[0] for line in text.splitlines()).split())


def test_what_was_on_record_is_there(opened: Store) -> None:
    _check(opened)


def _check(store: Store) -> None:
    """The unfinished run, the finished one, and all results."""
    (open_run,) = store.unfinished_runs()
    assert (open_run.name, open_run.parent, open_run.deadline, open_run.cancel_seq) == ("open-1", None, None, None)
    history = list(store.run_steps(open_run.id))
    assert [(step.seq, step.status) for step in history] == [(1, 0), (0, -1)]
    assert _value(history[0].payload) == 6
    done = store.find_run("done-1")
    assert done is not None
    assert done.payload is not None
    assert (done.state, _value(done.payload)) == ("completed", 6)
    alone = store.results(range(2, 7))
    assert [_value(row.payload) for row in alone] == [1, 2, 3, 4, 5]
    assert {function.name for function in store.functions()} == {
        "flows1:done", "flows1:add", "flows1:open_", "flows1:gate"
    }  # fmt: skip
    assert store.attempts([history[1].id]) == {history[1].id: (1, 0)}


def _value(payload: bytes) -> object:
    tag, body = unseal(payload)
    assert tag == PICKLE
    return pickle.loads(body)


def test_people_see_it_in_the_views(old: Path) -> None:
    Store.open(old).close(clean=True)
    with Reader.open(old) as reader:
        assert [(run.name, run.state, run.steps, run.done) for run in reader.runs()] == [
            ("open-1", "running", 2, 1), ("done-1", "completed", 3, 3)
        ]  # fmt: skip


def test_who_only_reads_is_told_what_to_do(old: Path) -> None:
    before = old.read_bytes()
    with pytest.raises(errors.StoreError, match=r"an earlier version of dq.*`dq up --db .*f\.db` upgrades it"):
        Reader.open(old)
    assert old.read_bytes() == before


def test_a_file_is_upgraded_once(old: Path) -> None:
    salts = set()
    for _ in range(2):
        store = Store.open(old)
        salts.add(store.salt())
        store.close(clean=True)
    assert len(salts) == 1


def test_an_upgrade_that_fails_leaves_the_old_file(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> str:
        return whole(name) + ("; SELECT no_such_function();" if name == "views.sql" else "")

    whole = sql.read
    monkeypatch.setattr(migrate, "read", read)
    with pytest.raises(errors.StoreError):
        Store.open(old)
    assert schema(old) == schema(FILES / "schema-1.db")
    monkeypatch.undo()
    store = Store.open(old)
    _check(store)
    store.close(clean=True)


@pytest.mark.usefixtures("strace")
def test_killed_in_the_middle_of_an_upgrade(tmp_path: Path, new: Schema) -> None:
    """The file is of one version or of the other, and nothing is lost."""
    before = schema(FILES / "schema-1.db")
    shutil.copy(FILES / "schema-1.db", _folder(tmp_path, "plain") / "f.db")
    assert tracing.run(tmp_path / "plain", 0, "-e", "trace=pwrite64").returncode == 0
    points = len(tracing.calls(tmp_path / "plain"))
    assert points > KILLS
    versions: set[int] = set()
    for number in range(1, points + 1, -(-points // KILLS)):
        folder = _folder(tmp_path, f"kill-{number}")
        file = Path(shutil.copy(FILES / "schema-1.db", folder / "f.db"))
        done = tracing.run(folder, 0, "-e", "trace=pwrite64", "-e", f"inject=pwrite64:signal=KILL:when={number}")
        assert done.returncode == -signal.SIGKILL, done.stderr
        found = schema(file)
        assert sorted_columns(found) == sorted_columns(before if found["version"] == 1 else new)
        versions.add(found["version"])
        store = Store.open(file)
        _check(store)
        store.close(clean=True)
    assert 1 in versions


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder
