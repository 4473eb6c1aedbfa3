"""The supervisor's end of a connection: frames however they are cut, and nothing that waits for a slow reader."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from dq.crew.peer import READ_MAX, Peer
from dq.crew.poller import Poller
from dq.executor.frames import BadFrame, Claim, Flush, Flushed, Submit, encode
from dq.executor.link import Link
from tests.waiting import wait_until

LARGE = Submit([(1, 1, b"x" * (3 * READ_MAX))])


@pytest.fixture
def poller() -> Poller:
    return Poller()


@pytest.fixture
def pair(poller: Poller) -> Iterator[tuple[Peer, socket.socket]]:
    ours, theirs = socket.socketpair()
    peer = Peer(ours, poller)
    yield peer, theirs
    peer.close()
    theirs.close()


def test_frames_arrive_whole_however_they_are_cut(pair: tuple[Peer, socket.socket]) -> None:
    peer, theirs = pair
    stream = encode(Flush(1)) + encode(Submit([(7, 1, b"abc")])) + encode(Flush(2))
    for at in range(len(stream) + 1):
        theirs.sendall(stream[:at])
        heard = peer.read()
        theirs.sendall(stream[at:])
        heard += peer.read()
        assert heard == [Flush(1), Submit([(7, 1, b"abc")]), Flush(2)]
    heard = []
    for at in range(len(stream)):
        theirs.sendall(stream[at : at + 1])
        heard = peer.read()
        assert len(heard) <= 1
    assert heard == [Flush(2)]
    assert not peer.closed


def test_a_frame_larger_than_one_read(pair: tuple[Peer, socket.socket]) -> None:
    peer, theirs = pair
    theirs.setblocking(False)
    rest = memoryview(encode(LARGE) + encode(Flush(3)))
    heard: list[object] = []

    def all_heard() -> bool:
        heard.extend(peer.read())
        return len(heard) == 2

    while rest:
        rest = rest[theirs.send(rest) :]
        heard += peer.read()
    wait_until(all_heard)
    assert heard == [LARGE, Flush(3)]


def test_nothing_to_read_is_not_the_end(pair: tuple[Peer, socket.socket]) -> None:
    peer, theirs = pair
    assert peer.read() == []
    assert not peer.closed
    theirs.close()
    assert peer.read() == []
    assert peer.closed


def test_all_that_a_dead_one_had_sent(pair: tuple[Peer, socket.socket]) -> None:
    peer, theirs = pair
    theirs.sendall(b"".join(encode(Flush(n)) for n in range(1000)) + encode(Flush(1000))[:-1])
    theirs.close()
    assert peer.drain() == [Flush(n) for n in range(1000)]
    assert peer.closed


@pytest.mark.parametrize("cut", [0, 1, 4])
def test_a_length_that_cannot_be_is_refused_before_it_is_there(pair: tuple[Peer, socket.socket], cut: int) -> None:
    """However its head is cut; else a stranger could fill the memory."""
    peer, theirs = pair
    peer.limit = 1000
    head = (1001).to_bytes(4, "little")
    theirs.sendall(head[:cut])
    if cut < 4:
        assert peer.read() == []
        theirs.sendall(head[cut:] + b"x")
    with pytest.raises(BadFrame, match="1001 bytes"):
        peer.read()


def test_what_is_not_read_waits_here_in_order(pair: tuple[Peer, socket.socket], poller: Poller) -> None:
    peer, theirs = pair
    peer.send(LARGE)
    assert peer.out_bytes > READ_MAX
    assert peer.mask & select.EPOLLOUT, "the kernel tells when there is room"
    peer.send(Flushed(2))
    poller.handle(peer.fd, lambda _mask: peer.flush())
    link = Link(theirs)
    heard: list[object] = []
    while len(heard) < 2:
        poller.poll(0)
        heard += link.poll()
    assert heard == [LARGE, Flushed(2)]
    assert peer.out_bytes == 0
    assert peer.mask == select.EPOLLIN


def test_a_peer_that_is_gone_is_no_error(pair: tuple[Peer, socket.socket]) -> None:
    peer, theirs = pair
    peer.send(LARGE)
    theirs.close()
    peer.flush()
    assert peer.out_bytes == 0
    peer.send(Flushed(1))
    while not peer.closed:  # what it had not read makes a reset of the end
        assert peer.read() == []
    peer.send(Flushed(2))


def test_descriptors_travel_with_their_frame(pair: tuple[Peer, socket.socket]) -> None:
    peer, theirs = pair
    reader, writer = os.pipe()
    peer.send(Claim(1, []), [writer])
    os.close(writer)
    frame, [passed], _, _ = socket.recv_fds(theirs, 100, 1)
    assert frame == encode(Claim(1, []))
    os.write(passed, b"here")
    assert os.read(reader, 10) == b"here"
    os.close(passed)
    os.close(reader)


def test_the_last_words_wait_for_who_reads(pair: tuple[Peer, socket.socket]) -> None:
    peer, theirs = pair
    peer.send(LARGE)
    peer.send(Flushed(1))
    heard: list[object] = []
    reader = threading.Thread(target=lambda: _hear(Link(theirs), heard))
    reader.start()
    peer.finish(time.monotonic() + 20)
    reader.join(20)
    assert heard == [LARGE, Flushed(1)]
    assert peer.out_bytes == 0


def _hear(link: Link, heard: list[object]) -> None:
    while len(heard) < 2:
        heard += link.receive()


def test_the_last_words_do_not_wait_for_who_does_not_read(pair: tuple[Peer, socket.socket]) -> None:
    peer, _theirs = pair
    peer.send(LARGE)
    began = time.monotonic()
    peer.finish(began + 0.1)
    assert 0.1 <= time.monotonic() - began < 5
    assert peer.out_bytes == 0
