"""What is left in the file is finished by whoever comes next: with or without the client that asked for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import dq
from dq.executor.codec import Codec
from dq.executor.frames import VERSION, Context, Define, Hello, Submit, Welcome
from dq.executor.link import Link
from tests.process import flows
from tests.process.crews import dial, members, rows, said, serving
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
DONE = "SELECT count(*) FROM dq_steps WHERE state = 'completed'"

_CLIENT = """
import sys
import dq
from tests.process import flows

with dq.Engine(sys.argv[1] + "/f.db", workers=2) as engine:
    futures = [engine.submit(flows.held, sys.argv[1], f"s{n}", n) for n in range(5)]
    engine.start(flows.three, sys.argv[1], id="r")
    engine.flush()
    print("on disk", flush=True)
    [future.result() for future in futures]
"""


def killed_with_its_crew(folder: Path) -> None:
    """A client whose steps and run are on disk, and some of them begun, when everybody is killed."""
    client = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"on disk\n"
    wait_until(lambda: sum(flows.begins(folder, f"s{n}") for n in range(5)) == 2)
    client.kill()
    owner = int((folder / "f.db.lock").read_text().split()[0])
    for pid in sorted(members(folder / "f.db"), key=lambda pid: pid != owner):  # first, so that it sees nobody die
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it has died with its supervisor
    client.wait()
    client.stdout.close()
    wait_until(lambda: not members(folder / "f.db"))


def test_steps_submitted_alone_are_done_when_their_client_is_gone(tmp_path: Path) -> None:
    killed_with_its_crew(tmp_path)
    for name in [*(f"s{n}" for n in range(5)), "second"]:
        (tmp_path / f"open-{name}").touch()
    with serving(tmp_path / "f.db", "--workers", "2") as process:
        wait_until(lambda: rows(tmp_path / "f.db", DONE) == [(8,)], 60)
        wait_until(lambda: rows(tmp_path / "f.db", "SELECT state FROM dq_run") == [("completed",)])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert sorted(flows.begins(tmp_path, f"s{n}") for n in range(5)) == [1, 1, 1, 2, 2]
    assert rows(tmp_path / "f.db", "SELECT outcome, charged FROM dq_attempt") == [("lost", 0)] * 2
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_batch") == [(0,)]
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_claim") == [(0,)]


def test_a_supervisor_without_workers_does_nothing_and_loses_nothing(tmp_path: Path) -> None:
    killed_with_its_crew(tmp_path)
    with serving(tmp_path / "f.db", "--workers", "0") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    states = rows(tmp_path / "f.db", "SELECT state FROM dq_steps WHERE run IS NULL")
    assert states == [("pending",)] * 5, "what was begun is free again"
    for name in [*(f"s{n}" for n in range(5)), "second"]:
        (tmp_path / f"open-{name}").touch()
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        assert engine.get("r").result(30) == 11
        wait_until(lambda: rows(tmp_path / "f.db", DONE) == [(8,)])


def test_pending_steps_can_be_cancelled_under_a_successor(tmp_path: Path) -> None:
    with dq.Executor(tmp_path / "f.db", max_workers=1) as pool:
        futures = [pool.submit(flows.held, str(tmp_path), f"s{n}", n) for n in range(4)]
        wait_until(lambda: flows.begins(tmp_path, "s0") == 1)
        pool._engine.flush()
        os.kill(pool._engine.census().rows[0].pid, signal.SIGKILL)
        assert [future.cancel() for future in futures[2:]] == [True, True]
        for name in ("s0", "s1"):
            (tmp_path / f"open-{name}").touch()
        assert [future.result(30) for future in futures[:2]] == [0, 10]
    assert rows(tmp_path / "f.db", "SELECT state FROM dq_steps ORDER BY id") == [
        ("completed",), ("completed",), ("cancelled",), ("cancelled",)
    ]  # fmt: skip
    assert flows.begins(tmp_path, "s2") == flows.begins(tmp_path, "s3") == 0


def test_an_interpreter_that_is_gone_is_told_and_others_go_on(tmp_path: Path) -> None:
    killed_with_its_crew(tmp_path)
    for name in [*(f"s{n}" for n in range(5)), "second"]:
        (tmp_path / f"open-{name}").touch()
    python = tmp_path / "venv" / "python"
    with closing(connect(tmp_path / "f.db")) as file:
        file.execute("UPDATE dq_context SET python = ?", (str(python),))
        file.commit()
    with serving(tmp_path / "f.db", "--workers", "2") as process:
        wait_until(lambda: said(tmp_path / "f.db", f"dq can't start {python}"))
        with dq.Engine(tmp_path / "f.db") as engine:
            assert engine.submit(abs, -3).result(30) == 3
        assert process.poll() is None
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    with serving(tmp_path / "f.db", "--workers", "2"):
        wait_until(lambda: rows(tmp_path / "f.db", DONE) == [(9,)], 60)
    assert Path(f"{tmp_path}/f.db.err").read_text().count("dq can't start") == 1


def test_the_template_of_edited_code_ends_with_its_last_member(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    text = (
        "import dq\n"
        "def mark():\n    return 'VERSION'\n"
        "if __name__ == '__main__':\n"
        "    with dq.Engine('f.db') as engine:\n"
        "        print(engine.submit(mark).result(30), sum(row.kind == 'template' for row in engine.census().rows))\n"
    )
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    with serving(tmp_path / "f.db", "--workers", "1"), dq.Engine(tmp_path / "f.db") as engine:
        for version in ("one", "two", "three"):
            script.write_text(text.replace("VERSION", version))
            told = subprocess.run(
                [sys.executable, script], cwd=tmp_path, env=environ, check=True, text=True, stdout=subprocess.PIPE
            )
            assert told.stdout.startswith(version)
        wait_until(lambda: [row.kind for row in engine.census().rows].count("template") <= 2)


def test_a_drain_stops_a_run_between_two_steps(tmp_path: Path) -> None:
    with serving(tmp_path / "f.db", "--workers", "1", "--grace", "60") as process:
        with dq.Engine(tmp_path / "f.db") as engine:
            engine.start(flows.three, str(tmp_path), id="r")
            wait_until(lambda: flows.begins(tmp_path, "second"))
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: said(tmp_path / "f.db", "may finish their steps"))
        (tmp_path / "open-second").touch()
        assert process.wait(20) == 0
    assert flows.begins(tmp_path, "third") == 0
    assert rows(tmp_path / "f.db", "SELECT state FROM dq_run") == [("running",)]
    assert rows(tmp_path / "f.db", DONE) == [(2,)]
    with serving(tmp_path / "f.db", "--workers", "1"):
        wait_until(lambda: rows(tmp_path / "f.db", "SELECT state FROM dq_run") == [("completed",)])
    assert [flows.begins(tmp_path, name) for name in ("first", "second", "third")] == [1, 1, 1]


def test_a_client_that_does_not_read_does_not_keep_the_supervisor(tmp_path: Path) -> None:
    with serving(tmp_path / "f.db", "--workers", "1") as process, dial(tmp_path / "f.db") as sock:
        link = Link(sock)
        path = (str(ROOT), str(ROOT / "executors"), *sys.path)
        link.send(Hello(VERSION, os.getpid(), b"n" * 16, Context(sys.executable, "", "/", path, "")))
        [welcome] = link.receive()
        assert isinstance(welcome, Welcome)
        args = Codec(None).dumps((("x", 200_000), {}), "a")
        link.send(Define(1, "operator:mul", "step", b"d" * 16, b"", "", 3))
        link.send(Submit([(welcome.first + n, 1, args) for n in range(20)]))
        wait_until(lambda: rows(tmp_path / "f.db", DONE) == [(20,)], 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert rows(tmp_path / "f.db", "SELECT clean FROM dq_engine") == [(1,)]


def test_what_is_finished_and_not_sent_is_lost_and_not_charged(tmp_path: Path) -> None:
    """Short bodies are sent together; the last one of them kills the worker before."""
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        list(engine.map(fatal, [str(tmp_path)] * 500, [False] * 500))
        for _ in range(20):
            (tmp_path / "killed").unlink(missing_ok=True)
            futures = [engine.submit(fatal, str(tmp_path), number == 15) for number in range(30)]
            assert [future.result(30) for future in futures] == [False] * 15 + [True] + [False] * 14
            if rows(tmp_path / "f.db", "SELECT count(*) FROM dq_attempt WHERE outcome = 'lost'") != [(0,)]:
                break
    counts = dict(rows(tmp_path / "f.db", "SELECT outcome || charged, count(*) FROM dq_attempt GROUP BY 1"))
    assert counts.keys() == {"crashed1", "lost0"}, json.dumps(counts)
    claims = "SELECT max(n) FROM (SELECT count(*) AS n FROM dq_attempt WHERE charged GROUP BY epoch)"
    assert rows(tmp_path / "f.db", claims) == [(1,)], "of each claim, only the one that was begun is charged"


@dq.step(max_crashes=100)
def fatal(folder: str, kills: bool) -> bool:
    if kills and not os.path.exists(f"{folder}/killed"):
        Path(folder, "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return kills
