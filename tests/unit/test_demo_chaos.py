"""The demo's killer, on processes that are nobody's."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.cli.demo.bodylog import Tail
from dq.cli.demo.chaos import Chaos, Kill
from dq.cli.demo.plan import Strike
from dq.errors import SupervisorLost

WAIT = 20.0  # seconds

# A worker that is in the middle of a body all the time: it appends begins and ends until it is killed.
WORKER = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
step = os.getpid() * 100000
while True:
    step += 1
    os.write(fd, b'["begin", %d, 1, 1, %d, 1, "x"]\\n' % (step, os.getpid()))
    time.sleep(0.02)
    os.write(fd, b'["end", %d, 1, 1, %d, 2, "x"]\\n' % (step, os.getpid()))
"""


class Crew:
    """Some workers, and whoever else is said to be there."""

    def __init__(self, log: str, workers: int) -> None:
        self.workers = [subprocess.Popen([sys.executable, "-I", "-c", WORKER, log]) for _ in range(workers)]
        self.away = 0  # how many of the next questions find nobody to answer

    def census(self) -> list[tuple[str, int]]:
        if self.away:
            self.away -= 1
            raise SupervisorLost("away")
        return [("worker", worker.pid) for worker in self.workers if worker.poll() is None]

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "log")


@pytest.fixture
def crew(log: str) -> Iterator[Crew]:
    crew = Crew(log, 3)
    try:
        yield crew
    finally:
        crew.end()


def run(crew: Crew, log: str, plan: list[Strike]) -> list[Kill]:
    chaos = Chaos(crew.census, log, plan, steps=10, seed=1, on_kill=lambda _kill: None)
    chaos.start()
    chaos.join(WAIT)
    assert not chaos.is_alive()
    assert chaos.fault is None
    return chaos.kills


def test_aimed_kills_land_between_begin_and_end(crew: Crew, log: str) -> None:
    crew.away = 2
    kills = run(crew, log, [Strike(0.1, "worker", aimed=True), Strike(1.0, "worker", aimed=True)])
    workers = {worker.pid: worker for worker in crew.workers}
    in_body = [kill for kill in kills if kill.in_body]
    assert 2 * len(in_body) >= len(kills) >= 2
    assert all(workers[kill.pid].wait() == -signal.SIGKILL for kill in kills)
    working = Tail(log).read().working
    assert all((kill.pid in working) == kill.in_body for kill in kills)


def test_kills_are_on_record(crew: Crew, log: str) -> None:
    kills = run(crew, log, [Strike(0.0, "worker", aimed=False)])
    assert f'["killed", "worker", {kills[0].pid}, ' in Path(log).read_text()


def test_nothing_is_killed_after_the_end(crew: Crew, log: str) -> None:
    chaos = Chaos(crew.census, log, [Strike(1e9, "worker", aimed=False)], steps=1, seed=1, on_kill=lambda _kill: None)
    chaos.start()
    chaos.end()
    assert chaos.kills == []
    assert len(crew.census()) == 3


def test_a_kind_that_is_not_there_is_waited_for_until_the_end(crew: Crew, log: str) -> None:
    asked = threading.Event()

    def census() -> list[tuple[str, int]]:
        asked.set()
        return crew.census()

    chaos = Chaos(census, log, [Strike(0.0, "host", aimed=False)], steps=1, seed=1, on_kill=lambda _kill: None)
    chaos.start()
    assert asked.wait(WAIT)
    chaos.end()
    assert chaos.kills == []
    assert chaos.fault is None


def test_what_goes_wrong_in_the_killer_is_kept(crew: Crew, log: str) -> None:
    def show(_kill: Kill) -> None:
        raise ZeroDivisionError

    chaos = Chaos(crew.census, log, [Strike(0.0, "worker", aimed=False)] * 2, steps=1, seed=1, on_kill=show)
    chaos.start()
    chaos.join(WAIT)
    assert isinstance(chaos.fault, ZeroDivisionError)
    assert len(chaos.kills) == 1
