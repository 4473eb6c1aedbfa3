"""One connection of the supervisor: frames in and out, never blocking."""

from __future__ import annotations

import array
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from dq.executor.frames import FRAME_MAX, HEAD, Any, BadFrame, Message, decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dq.crew.poller import Poller

READ_MAX = 1 << 20  # bytes taken from one connection before the others get their turn

# One buffer for all: what is read is decoded, or copied, before anybody else reads.
_buffer = bytearray(READ_MAX)
_view = memoryview(_buffer)


class Peer:
    """A framed, non-blocking socket registered with the supervisor's poller."""

    __slots__ = ("_inbox", "_outbox", "_poller", "closed", "fd", "limit", "mask", "out_bytes", "sock")

    def __init__(self, sock: socket.socket, poller: Poller, limit: int = FRAME_MAX) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.closed = False
        self.limit = limit  # bytes that a frame may have
        self.out_bytes = 0
        self.mask = select.EPOLLIN
        self._poller = poller
        self._inbox = bytearray()
        self._outbox: deque[memoryview] = deque()
        poller.register(self.fd, None, self.mask)

    def read(self) -> list[Any]:
        """The messages that have arrived. Sets `closed` at the end of the stream. Raises BadFrame."""
        try:
            count = self.sock.recv_into(_buffer)
        except BlockingIOError:
            return []
        except OSError:
            count = 0
        if not count:
            self.closed = True
            return []
        inbox = self._inbox
        if inbox:
            inbox += _view[:count]
            if len(inbox) < 4 or len(inbox) < 4 + _length(inbox, 0, self.limit):
                return []
            messages, used = _split(inbox, len(inbox), self.limit)
            del inbox[:used]
            return messages
        messages, used = _split(_buffer, count, self.limit)
        if used < count:
            inbox += _view[used:count]
        return messages

    def drain(self) -> list[Any]:
        """All that a dead process had sent."""
        messages: list[Any] = []
        while True:
            before = len(self._inbox)
            got = self.read()
            messages += got
            if not got and len(self._inbox) == before:
                break
        return messages

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        self.write(encode(message), fds)

    def write(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        """Sends, or keeps what the socket does not take for when it does. fds go with the first byte, at once."""
        if self.closed:
            return
        view = memoryview(frame)
        if not self._outbox:
            try:
                if fds:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
                    sent = self.sock.sendmsg([view], [rights])
                else:
                    sent = self.sock.send(view)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # the peer is gone; its end of stream tells
            if sent == len(view):
                return
            view = view[sent:]
        self._outbox.append(view)
        self.out_bytes += len(view)
        self.want(select.EPOLLOUT, True)

    def flush(self) -> None:
        """Goes on sending what was kept."""
        outbox = self._outbox
        while outbox:
            try:
                sent = self.sock.send(outbox[0])
            except BlockingIOError:
                return
            except OSError:
                outbox.clear()
                self.out_bytes = 0
                break
            self.out_bytes -= sent
            if sent < len(outbox[0]):
                outbox[0] = outbox[0][sent:]
                return
            outbox.popleft()
        self.want(select.EPOLLOUT, False)

    def finish(self, deadline: float) -> None:
        """Waits until everything is sent, but not past the deadline for somebody who does not read."""
        while self._outbox:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            self.flush()  # a timeout is an error, and the outbox is empty after it

    def want(self, event: int, wanted: bool) -> None:
        """Turns an epoll event on or off: EPOLLIN off is how a client that sends too much is made to wait."""
        mask = self.mask | event if wanted else self.mask & ~event
        if mask != self.mask and not self.closed:
            self.mask = mask
            self._poller.modify(self.fd, mask)

    def close(self) -> None:
        if self.fd >= 0:
            self._poller.unregister(self.fd)
            self.sock.close()
            self.fd = -1
            self.closed = True


def _split(buffer: bytearray, end: int, limit: int) -> tuple[list[Any], int]:
    """The whole frames in the first `end` bytes of a buffer, and how many bytes they take."""
    messages: list[Any] = []
    at = 0
    with memoryview(buffer) as view:
        while end - at >= 4:
            length = _length(buffer, at, limit)
            if end - at - 4 < length:
                break
            messages.append(decode(view[at + 4 : at + 4 + length]))
            at += 4 + length
    return messages, at


def _length(buffer: bytearray, at: int, limit: int) -> int:
    length: int = HEAD.unpack_from(buffer, at)[0]
    if length > limit:
        raise BadFrame(f"a frame of {length} bytes")
    return length
