"""Pipes that nobody empties: the output of steps, and the way to a supervisor that stands still. Nobody else waits."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dq
from dq.executor.frames import VERSION, Hello, encode
from tests.process import flows
from tests.process.crews import dial, serving, state
from tests.waiting import wait_until

GIB = 1 << 30
MIB = 1 << 20


@dq.step(timeout=0.5)
def prints(size: int, where: int) -> int:
    """Writes so many bytes to its standard output (1) or error (2)."""
    block, left = b"x" * 65536, size
    while left > 0:
        left -= os.write(where, block[:left])
    return size


@contextmanager
def unread(kind: str) -> Iterator[tuple[int, int]]:
    """Both ends of something that takes what is written until it is full: (the end to read, the end to write)."""
    first, second = socket.socketpair()
    ends = os.pipe() if kind == "pipe" else (os.dup(first.fileno()), os.dup(second.fileno()))
    first.close()
    second.close()
    try:
        yield ends
    finally:
        for fd in ends:
            os.close(fd)


def stranger(db: Path) -> None:
    """Somebody of another version comes, of whom the supervisor tells on its standard error stream."""
    with dial(db) as sock:
        sock.sendall(encode(Hello(VERSION + 1, os.getpid(), b"n" * 16, None)))
        assert sock.recv(1 << 16)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_step_whose_output_nobody_reads_holds_up_itself_only(tmp_path: Path, kind: str) -> None:
    db = tmp_path / "f.db"
    with (
        unread(kind) as (reader, writer),
        serving(db, "--workers", "2", out=writer),
        dq.Engine(db, workers=2) as engine,
    ):
        future = engine.submit(prints, GIB, 2)
        assert [engine.submit(abs, -number).result(30) for number in range(20)] == [*range(20)]
        with pytest.raises(dq.StepTimeout):
            future.result(30)
        for _ in range(3):
            stranger(db)
        assert engine.submit(abs, -7).result(30) == 7, "what the supervisor has to tell is not waited for either"
        drain = threading.Thread(target=_drain, args=(reader, 10 * MIB))
        drain.start()
        assert engine.submit(prints, 10 * MIB, 1).result(30) == 10 * MIB
        drain.join()


def _drain(fd: int, size: int) -> None:
    """Reads at least so many bytes."""
    while size > 0:
        size -= len(os.read(fd, MIB))


@dq.step
def large(folder: str, name: str, size: int) -> bytes:
    flows.note(folder, "begin", name)
    flows.hold(folder, name)
    flows.note(folder, "end", name)
    return bytes(size)


@dq.step
def steps_in_the_way(folder: str, size: int) -> str:
    """Many small results at once, each just short of a side file: together far more than a pipe takes."""
    flows.note(folder, "begin", "way")
    return "x" * size


def test_large_results_while_the_supervisor_stands_still(tmp_path: Path) -> None:
    """Workers wait in front of the full pipe, are not blamed for it, and send when somebody listens again."""
    db = tmp_path / "f.db"
    with serving(db, "--workers", "2", "--hang", "0.5") as process, dq.Engine(db, workers=2) as engine:
        big = engine.submit(large, str(tmp_path), "big", 50 * MIB)
        crowd = engine.map(steps_in_the_way, [str(tmp_path)] * 200, [200 << 10] * 200)
        wait_until(lambda: flows.begins(tmp_path, "big"))
        os.kill(process.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: state(process.pid) == "T")
            (tmp_path / "open-big").touch()
            wait_until(lambda: flows.ends(tmp_path, "big"), what="the end of its body")
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert len(big.result(30)) == 50 * MIB
        assert [len(text) for text in crowd] == [200 << 10] * 200
        assert flows.begins(tmp_path, "big") == 1
        assert flows.begins(tmp_path, "way") == 200
