"""The watch over what tests leave behind sees what it should see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests import leftovers
from tests.waiting import wait_until

_NAP = "import time; time.sleep(600)"
_DAEMON = """
import os, signal, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(int(sys.argv[1]), str(os.getpid()).encode())
        os.close(int(sys.argv[1]))
        os.closerange(0, 3)
        signal.pause()
    os._exit(0)
os.wait()
"""


def _orphan() -> int:
    """The pid of a process in a session of its own whose parents are gone."""
    reader, writer = os.pipe()
    subprocess.run([sys.executable, "-c", _DAEMON, str(writer)], pass_fds=[writer], check=True)
    os.close(writer)
    with open(reader, "rb") as pipe:
        return int(pipe.read())


def test_a_child_is_seen_and_killed(nothing_left_at_the_end: str, tmp_path: Path) -> None:
    before = leftovers.processes(nothing_left_at_the_end, tmp_path)
    with subprocess.Popen([sys.executable, "-c", _NAP]) as child:
        found = leftovers.strangers(before, leftovers.processes(nothing_left_at_the_end, tmp_path))
        assert [process.pid for process in found] == [child.pid]
        leftovers.kill(found)
        assert child.wait(20) == -signal.SIGKILL


def test_an_orphan_in_its_own_session_is_seen(nothing_left_at_the_end: str, tmp_path: Path) -> None:
    pid = _orphan()
    try:
        assert pid in leftovers.processes(nothing_left_at_the_end, tmp_path)
        assert pid not in leftovers.processes("0-0", tmp_path)
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in leftovers.processes(nothing_left_at_the_end, tmp_path))


def test_a_process_without_the_mark_is_seen_by_its_folder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _NAP, str(tmp_path / "f.db")], env={}) as child:
        try:
            assert child.pid in leftovers.processes("0-0", tmp_path)
        finally:
            child.kill()


def test_what_a_process_from_before_starts_is_no_stranger() -> None:
    engine = leftovers.Process(10, 1, 1, "S", "engine")
    worker = leftovers.Process(11, 2, 10, "S", "worker")
    reused = leftovers.Process(10, 9, 1, "S", "somebody else")
    assert leftovers.strangers({10: engine}, {10: engine, 11: worker}) == []
    assert leftovers.strangers({10: engine}, {10: reused, 11: worker}) == [reused, worker]


def test_files_outside_caches_and_sources_are_seen(tmp_path: Path) -> None:
    for name in ("f.db", "core", ".cache/x", "a/__pycache__/y.pyc", "a/flow.py", "a/log"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert leftovers.files(tmp_path) == {str(tmp_path / name) for name in ("f.db", "core", "a/log")}
