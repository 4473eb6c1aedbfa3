"""Peers at the socket of a real supervisor that say too much, too little or nothing: an honest client is served all the while."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import dq
from dq.executor.frames import VERSION, Flush, Hello, Refused, encode
from dq.executor.link import Link
from tests.fuzz.chatter import Chatter
from tests.process.crews import dial, serving
from tests.process.test_door import CONTEXT, ends
from tests.sweeps import tally

_CROWD = 200
_NOBODY = 65534  # a uid that is not root's


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "f.db"


@pytest.fixture
def honest(db: Path) -> Iterator[Callable[[], None]]:
    """Asks the supervisor for a step, and has its result."""
    with serving(db, "--workers", "1") as process, dq.Engine(db, workers=1) as engine:

        def served() -> None:
            assert engine.submit(abs, -7).result(20) == 7
            assert process.poll() is None

        served()
        yield served
        served()


def knock(db: Path) -> socket.socket:
    """A connection for which one waits while too many others wait at the door, as dq's own clients do."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(f"{db}.sock")
    sock.settimeout(20)
    return sock


def hello() -> bytes:
    return encode(Hello(VERSION, os.getpid(), b"n" * 16, CONTEXT))


def test_a_frame_that_claims_four_gigabytes(db: Path, honest: Callable[[], None]) -> None:
    """It is not waited for, and no memory is set aside for it: neither for a stranger's nor for a client's."""
    for greeting in (b"", hello()):
        with dial(db) as sock:
            sock.sendall(greeting + struct.pack("<I", 0xFFFFFFFF) + b"x" * 1000)
            assert any(isinstance(message, Refused) for message in ends(Link(sock)))
    honest()


def test_a_frame_that_comes_byte_by_byte_beside_those_who_say_nothing(db: Path, honest: Callable[[], None]) -> None:
    """They may stay: they cost a descriptor."""
    frame = hello()
    with dial(db) as sock, dial(db), dial(db) as known:
        known.sendall(frame)
        for number, byte in enumerate(frame):
            sock.sendall(bytes([byte]))
            if number % (len(frame) // 4) == 0:
                honest()
        assert Link(sock).receive()


def test_two_hundred_at_once(db: Path, honest: Callable[[], None]) -> None:
    """Half of them with half a frame. All that are let in are answered when they have said the rest."""
    frame = hello()
    with ExitStack() as stack:
        crowd = [stack.enter_context(knock(db)) for _ in range(_CROWD)]
        for number, sock in enumerate(crowd):
            sock.sendall(frame[: number % len(frame)])
        honest()
        for number, sock in enumerate(crowd):
            sock.sendall(frame[number % len(frame) :])
        for sock in crowd:
            assert Link(sock).receive()
        honest()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user(db: Path, honest: Callable[[], None]) -> None:
    """Even where the mode of the socket lets it in, it is shown out without a word."""
    os.chmod(f"{db}.sock", 0o777)
    sock = socket.socket(socket.AF_UNIX)
    ours, theirs = os.pipe()
    db.parent.chmod(0o711)
    child = os.fork()
    if child == 0:
        os.chdir(db.parent)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        try:
            sock.connect(f"{db.name}.sock")
            sock.settimeout(20)
            with contextlib.suppress(OSError):
                sock.sendall(hello())
            with contextlib.suppress(ConnectionError):
                os.write(theirs, sock.recv(100) or b"hung up")
            os.write(theirs, b".")
        except BaseException as error:
            os.write(theirs, repr(error).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    sock.close()
    assert told in (b"hung up.", b".")
    honest()


@pytest.mark.parametrize("count", [40, pytest.param(4000, marks=pytest.mark.soak)])
def test_garbage(db: Path, honest: Callable[[], None], count: int) -> None:
    """Frames of any kind, in a piece or cut, from somebody who has introduced himself or has not."""
    dice, began = random.Random(count), time.monotonic()
    chatter = Chatter(dice)
    for number in range(count):
        with dial(db) as sock:
            sock.setblocking(True)
            said = (hello() if dice.random() < 0.5 else b"") + chatter.frame() + encode(Flush(1))
            with contextlib.suppress(ConnectionError):
                sock.sendall(said if dice.random() < 0.8 else said[: dice.randrange(len(said))])
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                ends(Link(sock))
        if number % 20 == 0:
            honest()
    tally("peers that send garbage", count, seeds=str(count), began=began, crashed=0)
