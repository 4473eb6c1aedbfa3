"""Engines, executors and the real supervisor: who starts it, who stops it, and what an ending program leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import dq
from tests.process.crews import rows, serving

DONE = "SELECT count(*) FROM dq_result WHERE state = 'completed'"


def double(number: int) -> int:
    return number * 2


def is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_the_supervisor_stops_with_its_last_engine(tmp_path: Path) -> None:
    first = dq.Engine(tmp_path / "f.db", workers=1)
    pid = first.census().rows[0].pid
    with dq.Engine(tmp_path / "f.db") as second:
        assert second.census().rows[0].pid == pid
        assert first.submit(double, 1).result(20) == 2
        first.close()
        assert second.submit(double, 2).result(20) == 4
    assert not is_alive(pid)
    with dq.Executor(tmp_path / "f.db", max_workers=1) as pool:
        assert pool.submit(double, 3).result(20) == 6
        child = pool._engine.census().rows[0].pid
    assert not is_alive(child)


def test_a_supervisor_that_was_there_before_stays(tmp_path: Path) -> None:
    with serving(tmp_path / "f.db", "--workers", "1") as process:
        with dq.Engine(tmp_path / "f.db") as engine:
            assert engine.submit(double, 1).result(20) == 2
        assert process.poll() is None


def test_an_engine_takes_the_place_of_a_keeper_that_does_not_come_back(tmp_path: Path) -> None:
    with serving(tmp_path / "f.db", "--workers", "1") as process, dq.Engine(tmp_path / "f.db", workers=1) as engine:
        futures = [engine.submit(double, number) for number in range(500)]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert [future.result(30) for future in futures] == [2 * number for number in range(500)]
        assert engine.census().rows[0].pid != process.pid
    assert rows(tmp_path / "f.db", DONE) == [(500,)]


def test_many_submissions_survive_many_supervisors_and_none_is_doubled(tmp_path: Path) -> None:
    with dq.Executor(tmp_path / "f.db", max_workers=2) as pool:
        futures = []
        for part in range(4):
            futures += [pool.submit(double, number) for number in range(part * 2000, part * 2000 + 2000)]
            os.kill(pool._line.supervisor, signal.SIGKILL)
        assert [future.result(60) for future in futures] == [2 * number for number in range(8000)]
    assert rows(tmp_path / "f.db", "SELECT count(*), count(DISTINCT id) FROM dq_step") == [(8000, 8000)]
    assert rows(tmp_path / "f.db", DONE) == [(8000,)]


def run(script: Path) -> None:
    subprocess.run([sys.executable, str(script)], check=True, timeout=60, cwd=script.parent)


def test_a_program_that_ends_waits_for_its_executor(tmp_path: Path) -> None:
    script = tmp_path / "ends.py"
    script.write_text(
        "import dq, time\n"
        "def slow(number):\n"
        "    time.sleep(0.01)\n"
        "if __name__ == '__main__':\n"
        "    pool = dq.Executor('f.db', max_workers=2)\n"
        "    for number in range(20):\n"
        "        pool.submit(slow, number)\n"
    )
    run(script)
    assert rows(tmp_path / "f.db", DONE) == [(20,)]


def test_a_program_that_forgets_to_close_its_engine_loses_nothing(tmp_path: Path) -> None:
    script = tmp_path / "forgets.py"
    script.write_text(
        "import dq\n"
        "if __name__ == '__main__':\n"
        "    engine = dq.Engine('f.db', workers=1)\n"
        "    for number in range(3000):\n"
        "        engine.submit(abs, number)\n"
    )
    run(script)
    assert rows(tmp_path / "f.db", "SELECT count(*) FROM dq_step") == [(3000,)]


def test_a_forked_process_opens_an_engine_of_its_own(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        assert engine.submit(double, 1).result(20) == 2
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with dq.Engine(tmp_path / "f.db") as own:
                    code = 0 if own.submit(double, 4).result(20) == 8 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert engine.submit(double, 2).result(20) == 4
