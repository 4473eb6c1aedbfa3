"""Claiming ahead: short steps come in batches, and none of them waits behind a long one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import dq
from tests.process import flows
from tests.process.crews import rows
from tests.waiting import wait_until


@dq.step
def maybe(folder: str, name: str, holds: bool) -> str:
    """One function, so one estimate of its cost, which is wrong when it holds."""
    if holds:
        flows.note(folder, "begin", name, os.getpid())
        flows.hold(folder, name)
        flows.note(folder, "end", name, os.getpid())
    return name


def warm(engine: dq.Engine, folder: Path) -> None:
    """Many short calls, so that the supervisor expects the next ones to be short."""
    list(engine.map(maybe, [str(folder)] * 2000, [str(n) for n in range(2000)], [False] * 2000))


def test_short_steps_do_not_wait_behind_a_long_one(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        warm(engine, tmp_path)
        long = engine.submit(maybe, str(tmp_path), "long", True)
        short = [engine.submit(maybe, str(tmp_path), str(n), False) for n in range(2000)]
        assert [future.result(30) for future in short] == [str(n) for n in range(2000)]
        assert not long.done()
        (tmp_path / "open-long").touch()
        assert long.result(30) == "long"
    assert flows.begins(tmp_path, "long") == 1
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_result") == [(4001,)]
    assert rows(tmp_path / "f.db", "SELECT * FROM dq_attempt") == []


def test_with_one_worker_too_what_it_has_not_begun_is_free(tmp_path: Path) -> None:
    """What is given back waits in the queue, not in the worker: a kill of the long one costs the others nothing."""
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        warm(engine, tmp_path)
        futures = [engine.submit(maybe, str(tmp_path), "long", True)]
        futures += [engine.submit(maybe, str(tmp_path), str(n), False) for n in range(200)]
        engine.flush()
        wait_until(lambda: flows.begins(tmp_path, "long"))
        wait_until(lambda: engine.census().claimed == 1)
        assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_steps WHERE state = 'claimed'") == [(1,)]
        [worker] = [row.pid for row in engine.census().rows if row.kind == "worker"]
        os.kill(worker, signal.SIGKILL)
        assert [future.result(30) for future in futures] == ["long", *map(str, range(200))]
    assert rows(tmp_path / "f.db", "SELECT outcome, charged FROM dq_attempt") == [("crashed", 1)]
    assert flows.begins(tmp_path, "long") == 2


def test_only_the_step_that_was_begun_is_charged(tmp_path: Path) -> None:
    """The worker dies before it could give anything back: the others were not begun, so their attempt does not count."""
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        warm(engine, tmp_path)
        futures = [engine.submit(_suicide, str(tmp_path))]
        futures += [engine.submit(maybe, str(tmp_path), str(n), False) for n in range(100)]
        assert [future.result(30) for future in futures] == ["survived", *map(str, range(100))]
    crashed = rows(tmp_path / "f.db", "SELECT step, attempt, charged FROM dq_attempt WHERE outcome = 'crashed'")
    assert [row[1:] for row in crashed] == [(1, 1)]
    last = "SELECT max(attempt) FROM dq_result WHERE state = 'completed' AND step NOT IN (SELECT step FROM dq_attempt)"
    assert rows(tmp_path / "f.db", last) == [(1,)]


def _suicide(folder: str) -> str:
    flows.note(folder, "begin", "suicide", os.getpid())
    if flows.begins(folder, "suicide") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def test_long_steps_are_claimed_one_at_a_time(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        names = [f"w{n}" for n in range(6)]
        futures = [engine.submit(flows.held, str(tmp_path), name, 1) for name in names]
        wait_until(lambda: sum(flows.begins(tmp_path, name) for name in names) == 2)
        engine.flush()
        claims = rows(tmp_path / "f.db", "SELECT steps FROM dq_claim")
        assert [len(json.loads(steps)) for (steps,) in claims] == [1, 1]
        assert engine.census().pending == 4
        for name in names:
            (tmp_path / f"open-{name}").touch()
        assert [future.result(30) for future in futures] == [10] * 6
