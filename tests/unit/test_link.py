"""Links: whole messages over a stream that keeps no borders."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import pytest

from dq.executor.frames import BadFrame, Claim, Flush, Flushed, encode
from dq.executor.link import Closed, Link


@pytest.fixture
def pair() -> Iterator[tuple[Link, Link]]:
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(30)
        right.settimeout(30)
        yield Link(left), Link(right)


def test_messages_arrive_in_order(pair: tuple[Link, Link]) -> None:
    left, right = pair
    found: list[object] = []
    for ticket in range(0, 100, 10):
        for offset in range(10):
            left.send(Flush(ticket + offset))
        while len(found) < ticket + 10:
            found += right.receive()
    assert found == [Flush(ticket) for ticket in range(100)]
    assert right.pending == 0


def test_any_cut_of_the_stream_will_do(pair: tuple[Link, Link]) -> None:
    left, right = pair
    chance = random.Random(5)
    sent = [Claim(n, [(n, 1, 1, bytes(chance.choice([0, 3, 70_000, 200_000])))] * (n % 4)) for n in range(40)]
    stream = b"".join(encode(message) for message in sent)

    def write() -> None:
        at = 0
        while at < len(stream):
            step = chance.choice([1, 2, 5, 4096, 100_000])
            left.sock.sendall(stream[at : at + step])
            at += step
        left.close()

    writer = threading.Thread(target=write)
    writer.start()
    found: list[object] = []
    while len(found) < len(sent):
        found += right.receive()
    writer.join()
    assert found == sent
    with pytest.raises(Closed):
        right.receive()


def test_a_frame_of_a_hundred_megabytes(pair: tuple[Link, Link]) -> None:
    left, right = pair
    sent = Claim(1, [(1, 1, 1, bytes(100 << 20))])
    writer = threading.Thread(target=lambda: left.send_bytes(encode(sent) + encode(Flush(1))))
    writer.start()
    found: list[object] = []
    while len(found) < 2:
        found += right.receive()
    writer.join()
    assert found == [sent, Flush(1)]
    assert len(right._buffer) < 1 << 20  # the large buffer is not kept


def test_poll_never_waits(pair: tuple[Link, Link]) -> None:
    left, right = pair
    assert right.poll() == []
    frame = encode(Flush(3))
    left.sock.sendall(frame[:5])
    assert right.poll() == []
    assert right.pending == 5
    left.sock.sendall(frame[5:] + encode(Flushed(4)))
    assert right.poll() == [Flush(3), Flushed(4)]
    left.close()
    with pytest.raises(Closed):
        right.poll()


def test_what_came_before_the_end_is_not_lost(pair: tuple[Link, Link]) -> None:
    left, right = pair
    left.send(Flush(1))
    left.sock.sendall(b"\x09")
    left.close()
    assert right.receive() == [Flush(1)]
    with pytest.raises(Closed):
        right.receive()


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x02\0\0\0\x91\xc1", b"\x01\0\0\0\x07"])
def test_garbage_is_told_after_what_was_whole(pair: tuple[Link, Link], garbage: bytes) -> None:
    left, right = pair
    left.sock.sendall(encode(Flush(1)) + garbage + encode(Flush(2)))
    assert right.receive() == [Flush(1)]
    for _ in range(2):
        with pytest.raises(BadFrame):
            right.receive()


def test_longer_frames_than_allowed_are_refused_before_they_are_read(pair: tuple[Link, Link]) -> None:
    left, right = pair
    short = Link(right.sock, limit=100)
    left.sock.sendall((101).to_bytes(4, "little"))
    with pytest.raises(BadFrame, match="101 bytes"):
        short.receive()


def test_sending_to_nobody_is_closed(pair: tuple[Link, Link]) -> None:
    left, right = pair
    right.close()
    with pytest.raises(Closed):
        left.send(Flush(1))


def test_a_timeout_of_the_socket_leaves_the_link_as_it_was(pair: tuple[Link, Link]) -> None:
    left, right = pair
    right.sock.settimeout(0.01)
    left.sock.sendall(encode(Flush(8))[:3])
    with pytest.raises(TimeoutError):
        right.receive()
    left.sock.sendall(encode(Flush(8))[3:])
    assert right.receive() == [Flush(8)]


def test_a_link_can_be_selected(pair: tuple[Link, Link]) -> None:
    left, _ = pair
    assert left.fileno() == left.sock.fileno()
