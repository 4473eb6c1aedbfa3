"""What comes in at the supervisor's door: garbage ends its own connection, and nobody else notices."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dq
from dq.client import origin
from dq.executor.codec import Codec
from dq.executor.frames import (
    VERSION,
    BadFrame,
    Bye,
    Context,
    Define,
    Farewell,
    Flush,
    Flushed,
    Hello,
    Refused,
    Results,
    Submit,
    Welcome,
    encode,
)
from dq.executor.link import Closed, Link
from tests.process.crews import dial, rows, serving
from tests.waiting import wait_until

CONTEXT = Context(sys.executable, "", "/", tuple(sys.path), "")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[dq.Engine]:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        yield engine
        assert engine.submit(abs, -3).result(20) == 3, "the engine still works"


def ends(link: Link) -> list[object]:
    """What the supervisor says before it closes the connection."""
    said: list[object] = []
    while True:
        try:
            said += link.receive()
        except Closed:
            return said


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        struct.pack("<I", 0xFFFFFFFF) + b"x" * 100,
        struct.pack("<I", 4) + b"\xc1\xc1\xc1\xc1",
        encode(Flush(1)),
        encode(Hello(VERSION + 1, 1, b"n" * 16, None)),
        encode(Results(1, [(1, 0, b"", 0, 0)])),
    ],
    ids=["http", "length", "bytes", "no-hello", "version", "a-workers-word"],
)
def test_garbage(engine: dq.Engine, garbage: bytes) -> None:
    with dial(Path(engine.path)) as sock:
        sock.sendall(garbage)
        said = ends(Link(sock))
    assert all(isinstance(message, Refused) for message in said)


def test_half_a_frame(engine: dq.Engine) -> None:
    frame = encode(Hello(VERSION, os.getpid(), b"n" * 16, CONTEXT))
    with dial(Path(engine.path)) as sock:
        sock.sendall(frame[:-3])
        assert engine.submit(abs, -4).result(20) == 4, "nobody waits for the rest"
        sock.sendall(frame[-3:])
        link = Link(sock)
        [welcome] = link.receive()
        assert isinstance(welcome, Welcome)
        sock.sendall(encode(Flush(1))[:-1])


@pytest.mark.parametrize("garbage", [b"\xff" * 64, struct.pack("<I", 3) + b"\x93\x0a\xc0"], ids=["length", "types"])
def test_garbage_in_the_middle_ends_that_connection_alone(engine: dq.Engine, garbage: bytes) -> None:
    """What was on disk before it is done."""
    future = engine.submit(abs, -6)
    with dial(Path(engine.path)) as sock:
        link = Link(sock)
        link.send(Hello(VERSION, os.getpid(), b"n" * 16, CONTEXT))
        [welcome] = link.receive()
        assert isinstance(welcome, Welcome)
        link.send(Define(1, "builtins:abs", "step", b"d" * 16, b"", "", 3))
        link.send(Submit([(welcome.first, 1, Codec(None).dumps(((-5,), {}), "a"))]))
        link.send(Flush(1))
        said: list[object] = []
        while Flushed(1) not in said:
            said += link.receive()
        sock.sendall(garbage)
        assert any("makes no sense" in str(message) for message in ends(link))
    assert future.result(20) == 6
    wait_until(lambda: rows(engine.path, "SELECT sum(state = 'completed') FROM dq_steps") == [(2,)])


def test_another_version_is_told_which_one_is_spoken(engine: dq.Engine) -> None:
    with dial(Path(engine.path)) as sock:
        sock.sendall(encode(Hello(VERSION + 1, os.getpid(), b"n" * 16, CONTEXT)))
        [refused] = ends(Link(sock))
    assert isinstance(refused, Refused)
    [supervisor] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
    for words in (f"(pid {supervisor})", f"version {VERSION} of the protocol", "dq up"):
        assert words in refused.text


def test_a_client_that_speaks_out_of_turn(engine: dq.Engine) -> None:
    """A function that was never introduced, and a result, which is not a client's to say."""
    for word in (Submit([(1, 99, b"")]), Results(1, [(1, 0, b"", 0, 0)])):
        with dial(Path(engine.path)) as sock:
            link = Link(sock)
            link.send(Hello(VERSION, os.getpid(), b"n" * 16, CONTEXT))
            [welcome] = link.receive()
            assert isinstance(welcome, Welcome)
            link.send(word)
            assert any(isinstance(message, Refused) for message in ends(link))


def test_ids_that_are_not_the_clients_own(engine: dq.Engine) -> None:
    """An id is one step, whoever says it, and however often; one that was never given out is refused."""
    assert engine.submit(abs, -7).result(20) == 7
    with dial(Path(engine.path)) as sock:
        link = Link(sock)
        link.send(Hello(VERSION, os.getpid(), b"n" * 16, CONTEXT))
        [welcome] = link.receive()
        assert isinstance(welcome, Welcome)
        args = Codec(None).dumps(((-5,), {}), "a")
        link.send(Define(1, "builtins:abs", "step", b"d" * 16, b"", "", 3))
        link.send(Submit([(1, 1, args), (welcome.first, 1, args), (welcome.first, 1, args)]))
        link.send(Submit([(welcome.first, 1, args)]))
        link.send(Submit([(1 << 50, 1, args)]))
        assert any(isinstance(message, Refused) for message in ends(link))
    wait_until(lambda: rows(engine.path, "SELECT count(*), sum(state = 'completed') FROM dq_steps") == [(2, 2)])


def test_a_frame_is_refused_by_its_reader() -> None:
    from dq.executor.frames import decode

    with pytest.raises(BadFrame):
        decode(b"\x93\x0a")


def test_a_client_that_reads_late_still_hears_the_farewell(tmp_path: Path) -> None:
    """It takes results that were on their way first; else it would not know that its supervisor stops."""
    count, size = 20, 200_192
    with serving(tmp_path / "f.db", "--workers", "1", "--ephemeral") as process:
        with dial(tmp_path / "f.db") as sock:
            link = Link(sock)
            link.send(Hello(VERSION, os.getpid(), b"n" * 16, origin.here()))
            [welcome] = link.receive()
            assert isinstance(welcome, Welcome)
            args = Codec(None).dumps(((size,), {}), "a")
            link.send(Define(1, "builtins:bytes", "step", b"d" * 16, b"", "", 3))
            link.send(Submit([(welcome.first + number, 1, args) for number in range(count)]))
            wait_until(lambda: rows(tmp_path / "f.db", "SELECT count(*) FROM dq_result") == [(count,)])
            link.send(Bye(now=False))
            said = ends(link)
        assert said[-1] == Farewell(stops=True)
        assert sum(len(message.rows) for message in said if isinstance(message, Results)) == count
        assert process.wait(20) == 0


HASTY = """
import os, signal, sys
from dq.crew import boot
from dq.store.store import Store
sound = Store.boot
def boot_and_be_asked_to_leave(self, boot_id):
    os.kill(os.getpid(), signal.SIGTERM)
    return sound(self, boot_id)
Store.boot = boot_and_be_asked_to_leave
sys.exit(boot.main(sys.argv[1:]))
"""


def test_who_is_asked_to_leave_before_it_is_ready_is_ready_first(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    words = ["--db", str(tmp_path / "f.db"), "--workers", "0", "--ready-fd", str(theirs)]
    with subprocess.Popen([sys.executable, "-c", HASTY, *words], pass_fds=[theirs]) as process:
        os.close(theirs)
        with open(ours) as pipe:
            assert json.loads(pipe.readline())["error"] is None
        assert process.wait(30) == 0
