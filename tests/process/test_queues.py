"""Queues with real processes: limits under kill -9, rates, one step for two clients, and the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dq
from tests.process import flows, queueflows
from tests.process.crews import rows, serving
from tests.process.queueflows import asks_once, careful, echo, guarded, metered, noop, once, trivial
from tests.waiting import wait_until


def entered(folder: str) -> list[int]:
    """The process of each body that came in."""
    return [int(line.split()[2]) for line in flows.lines(folder) if line.startswith("in ")]


def overlap(folder: Path) -> int:
    """How many bodies of live processes were in at once, at most."""
    inside: dict[str, int] = {}
    most = 0
    for _, step, name in queueflows.visits(folder):
        if step > 0:
            inside[name] = inside.get(name, 0) + 1  # 2 where its first process was killed: then that is out
            most = max(most, len(inside))
        else:
            inside.pop(name, None)
    return most


def dq_command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dq", *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_at_once_on_four_workers_whoever_is_killed(tmp_path: Path) -> None:
    """A worker and then the supervisor are killed in the middle; never are more than two bodies at work."""
    folder = str(tmp_path)
    with dq.Engine(tmp_path / "f.db", workers=4) as engine:
        futures = [engine.submit(careful, folder, f"s{n}", 0.05) for n in range(14)]
        wait_until(lambda: len(entered(folder)) >= 3)
        os.kill(entered(folder)[-1], signal.SIGKILL)
        wait_until(lambda: len(entered(folder)) >= 7)
        os.kill(engine.census().rows[0].pid, signal.SIGKILL)
        pids = {future.result(60) for future in futures}
    assert len(pids) > 1
    assert overlap(tmp_path) == 2
    assert len({line.split()[1] for line in flows.lines(folder) if line.startswith("out ")}) == 14


def test_no_more_begin_within_the_time_than_may(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        list(engine.map(metered, [str(tmp_path)] * 8, [f"s{n}" for n in range(8)]))
    begun = [at for at, _, _ in queueflows.visits(tmp_path)]
    assert len(begun) == 8
    gaps = [later - earlier for earlier, later in zip(begun, begun[3:], strict=False)]
    assert min(gaps) >= 500_000_000, gaps
    assert begun[-1] - begun[0] < 5_000_000_000


def test_two_clients_and_a_run_share_one_step(tmp_path: Path) -> None:
    """The supervisor is killed while all three wait; the body runs to its end once."""
    folder, db = str(tmp_path), tmp_path / "f.db"
    with serving(db, "--workers", "2") as process, dq.Client(db) as one, dq.Client(db) as two:
        word = once.options(dedup="word")
        first = one.submit(word, folder, "word")
        wait_until(lambda: flows.begins(folder, "word") == 1)
        second = two.submit(word, folder, "word")
        run = two.start(asks_once, folder, "word", id="run")
        wait_until(lambda: rows(db, "SELECT count(*) FROM dq_term WHERE same_as IS NOT NULL") == [(2,)])
        process.kill()
        process.wait()
        with serving(db, "--workers", "2"):
            assert first.result(60) == second.result(60) == run.result(60)
    assert flows.begins(folder, "word") == 2, "it was killed once"
    assert rows(db, "SELECT count(*) FROM dq_result WHERE attempt > 0") == [(1,)]


def test_the_command_line_pauses_whether_anybody_works_or_not(tmp_path: Path) -> None:
    folder, db = str(tmp_path), str(tmp_path / "f.db")
    with dq.Client(db) as client:
        client.submit(guarded, folder, "early")
        client.flush()
    assert "is paused" in dq_command("queue", "pause", "door", "--db", db)
    [told] = json.loads(dq_command("queues", "--db", db, "--json"))
    assert (told["name"], told["waiting"], told["paused"], told["concurrency"]) == ("door", 1, True, 8)
    with dq.Engine(db, workers=1) as engine:
        late = engine.submit(guarded, folder, "late")
        assert engine.submit(noop).result(60) is None, "what has no queue runs"
        assert engine.queue("door").info().waiting == 2
        assert flows.lines(folder) == []
        dq_command("queue", "limit", "door", "--concurrency", "1", "--rate", "100/1", "--db", db)
        dq_command("queue", "resume", "door", "--db", db)
        assert late.result(60) == "late"
        info = engine.queue("door").info()
        assert (info.concurrency, info.rate, info.by_hand, info.paused) == (1, (100, 1.0), True, False)
        assert [line.split()[1] for line in flows.lines(folder)] == ["early", "late"]
        engine.queue("door").limit(default=True)
        assert engine.queue("door").info().concurrency == 8


def test_many_runs_start_in_no_time_and_only_once(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        names = [f"run-{number}" for number in range(3000)]
        runs = engine.start_many(trivial, iter(range(3000)), id=lambda number: f"run-{number}")
        assert [run.id for run in runs] == names
        assert [run.result(60) for run in runs[:5]] == [1, 2, 3, 4, 5]
        again = engine.start_many(trivial, [(number,) for number in range(50)], id=lambda number: f"run-{number}")
        assert [run.result(60) for run in again] == list(range(1, 51))
        assert runs[-1].result(60) == 3000
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_run") == [(3000,)]


def test_a_flood_does_not_starve_a_lone_step(tmp_path: Path) -> None:
    db = tmp_path / "f.db"
    with dq.Engine(db, workers=2) as flooding, dq.Client(db) as other:
        flood = [flooding.submit(noop) for _ in range(60_000)]
        lone = [other.submit(echo, n) for n in range(3)]
        assert [future.result(60) for future in lone] == [0, 1, 2]
        assert not flood[-1].done(), "the flood is not over yet"
        assert flood[-1].result(60) is None


def test_a_map_over_a_long_generator_keeps_little_in_memory(tmp_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    ahead = taken = 0

    def items() -> Iterator[int]:
        nonlocal ahead
        for number in range(60_000):
            ahead = max(ahead, number - taken)
            yield number

    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        before = 0
        for number in engine.map(echo, items()):
            assert number == taken
            taken += 1
            if taken == 20_000:
                before = resident()
        assert resident() - before < 48 << 20
    assert taken == 60_000
    assert ahead < 20_000
