"""Effects happen exactly once, whoever is killed, together with the completion of the step that asks for them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import dq
from tests.process import accounts, flows
from tests.process.crews import rows
from tests.waiting import wait_until

COUNT = 200
NAMES = ("ann", "bob", "eve")


def _prepare(engine: dq.Engine) -> None:
    for table in accounts.TABLES:
        assert engine.execute(table) == 0
    assert engine.execute("INSERT INTO account VALUES ('ann', 1000), ('bob', 1000), ('eve', 1000)") == 3


def _kill(engine: dq.Engine, kind: str) -> None:
    pid = wait_until(lambda: next((member.pid for member in engine.census().rows if member.kind == kind), 0))
    os.kill(pid, signal.SIGKILL)


def _holder(folder: Path, name: str) -> int:
    """The process that holds there, once it does."""
    wait_until(lambda: flows.begins(folder, name))
    line = next(line for line in flows.lines(folder) if line.split()[:2] == ["begin", name])
    return int(line.split()[2])


def test_each_transfer_is_made_once_whoever_is_killed(engine: dq.Engine) -> None:
    _prepare(engine)
    path = engine.path

    def done() -> int:
        return int(rows(path, "SELECT count(*) FROM ledger")[0][0])

    calls = [(number, NAMES[number % 3], NAMES[(number + 1) % 3], number % 7) for number in range(COUNT)]
    futures = [engine.submit(accounts.transfer, *call) for call in calls]
    for count, kind in [(20, "worker"), (50, "supervisor"), (80, "worker"), (110, "supervisor"), (140, "worker")]:
        wait_until(lambda count=count: done() >= count)  # type: ignore[misc]
        _kill(engine, kind)
    assert [future.result(60) for future in futures] == list(range(COUNT))
    expected: dict[str, int] = dict.fromkeys(NAMES, 1000)
    for _, source, target, cents in calls:
        expected[source] -= cents
        expected[target] += cents
    assert dict(engine.read("SELECT name, cents FROM account")) == expected
    assert engine.read("SELECT number FROM ledger ORDER BY number") == [(number,) for number in range(COUNT)]
    completed = engine.read("SELECT id FROM dq_steps WHERE name LIKE '%:transfer' AND state = 'completed' ORDER BY id")
    assert engine.read("SELECT step FROM ledger ORDER BY step") == completed


def test_bodies_in_threads_have_effects_too(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1, executors={"io": "thread:4"}) as engine:
        _prepare(engine)
        step = accounts.transfer.options(executor="io")
        assert list(engine.map(step, range(40), ["ann"] * 40, ["bob"] * 40, [10] * 40)) == list(range(40))
        assert engine.read("SELECT cents FROM account ORDER BY name") == [(600,), (1400,), (1000,)]
        assert engine.read("SELECT count(DISTINCT number) FROM ledger") == [(40,)]


def test_what_an_effect_breaks_fails_the_attempt_and_writes_nothing(engine: dq.Engine, tmp_path: Path) -> None:
    _prepare(engine)
    with pytest.raises(dq.EffectFailed, match=r"statement 1 of 3.*CHECK constraint failed: cents >= 0") as caught:
        engine.submit(accounts.transfer, 1, "ann", "bob", 5000).result(30)
    assert caught.value.statement.startswith("UPDATE account SET cents = cents - ?")
    with pytest.raises(dq.EffectFailed, match="it changed 0 rows and should change 1"):
        engine.submit(accounts.transfer, 1, "ann", "nobody", 1).result(30)
    with pytest.raises(dq.EffectFailed, match="it changed 0 rows"):
        engine.submit(accounts.twice, str(tmp_path)).result(30)
    assert flows.begins(tmp_path, "twice") == 2, "a failure at the commit counts for the retry policy like any other"
    assert engine.read("SELECT count(*) FROM ledger") == [(0,)]
    assert engine.read("SELECT sum(cents) FROM account") == [(3000,)]
    with pytest.raises(dq.EffectFailed, match="dq_run is dq's own"):
        engine.execute("DELETE FROM dq_run")
    with pytest.raises(dq.ReadFailed, match="no such table: nowhere"):
        engine.read("SELECT * FROM nowhere")
    with pytest.raises(dq.ReadFailed, match="reading only"):
        engine.read("DELETE FROM account")


def test_a_step_and_a_signal_come_with_the_commit_or_not_at_all(engine: dq.Engine, tmp_path: Path) -> None:
    _prepare(engine)
    run = engine.start(accounts.hears, id="hears")
    future = engine.submit(accounts.announces, str(tmp_path), "hears")
    first = _holder(tmp_path, "announces")

    def there() -> list[int]:
        return [rows(engine.path, f"SELECT count(*) FROM {what}")[0][0] for what in (
            "ledger", "dq_signal", "dq_steps WHERE name LIKE '%:follows'")]  # fmt: skip

    assert there() == [0, 0, 0]
    os.kill(first, signal.SIGKILL)
    future.result(30)
    assert run.result(30) == "it is done"
    assert flows.begins(tmp_path, "announces") == 2
    assert there() == [1, 1, 1]
    wait_until(lambda: rows(engine.path, "SELECT state FROM dq_steps WHERE name LIKE '%:follows'") == [("completed",)])
    with pytest.raises(dq.NoSuchRun, match="nobody"):
        engine.submit(accounts.announces, str(tmp_path), "nobody").result(30)
    assert there() == [1, 1, 1]


def test_a_workflow_s_signal_is_sent_once_though_its_host_is_killed(engine: dq.Engine, tmp_path: Path) -> None:
    heard = engine.start(accounts.hears, id="hears")
    run = engine.start(accounts.tells, str(tmp_path), "hears", id="tells")
    os.kill(_holder(tmp_path, "tells"), signal.SIGKILL)
    assert run.result(30) is None
    assert heard.result(30) == "once"
    assert flows.begins(tmp_path, "tells") == 2
    assert engine.read("SELECT count(*) FROM dq_steps WHERE name = 'dq:signal'") == [(1,)]
    assert rows(engine.path, "SELECT count(*) FROM dq_signal") == [(1,)]


def test_a_read_is_a_snapshot_and_in_a_workflow_it_is_on_record(engine: dq.Engine, tmp_path: Path) -> None:
    _prepare(engine)
    assert engine.submit(accounts.looks, "ann").result(30) == [1000, 1000], "what a body asks for is not done yet"
    run = engine.start(accounts.remembers, str(tmp_path), id="remembers")
    host = _holder(tmp_path, "remembers")
    engine.execute("UPDATE account SET cents = ? WHERE name = 'ann'", (5,))
    os.kill(host, signal.SIGKILL)
    assert run.result(30) == ([("ann", 1002)], [(5,)])
    assert dq.read("SELECT count(*) FROM account", db=engine.path) == [(3,)]


def test_statements_from_outside_need_no_worker_and_outlive_a_supervisor(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=0) as engine:
        engine.execute("CREATE TABLE t (number INTEGER)")
        assert engine.execute("INSERT INTO t VALUES (?)", (0,)) == 1
        _kill(engine, "supervisor")
        assert [engine.execute("INSERT INTO t VALUES (:n)", {"n": number}) for number in range(1, 4)] == [1, 1, 1]
        assert engine.read("SELECT number FROM t") == [(0,), (1,), (2,), (3,)]
