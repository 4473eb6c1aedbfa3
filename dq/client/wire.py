"""The pump's end of the socket: reads what is there, keeps what the kernel does not take, sleeps until there is more."""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

from dq.executor.frames import Message, encode
from dq.executor.link import Closed, Link

_IOV = 64  # buffers in one system call


class Wire:
    """A connected socket that is never waited on but in `sleep`."""

    def __init__(self, sock: socket.socket, wake_fd: int) -> None:
        self._sock = sock
        self._link = Link(sock)
        self._wake_fd = wake_fd
        self._out: deque[bytes | memoryview] = deque()
        self._writes = False  # whether poll looks for room
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(wake_fd, select.POLLIN)

    def greet(self, hello: Message, timeout: float) -> list[Any]:
        """Sends the first message and waits for what comes back. Raises Closed, TimeoutError, BadFrame."""
        self._sock.settimeout(timeout)
        self._link.send(hello)
        messages = self._link.receive()
        self._sock.setblocking(False)
        return messages

    def put(self, frames: Iterable[bytes]) -> None:
        """Queues frames; `push` sends them."""
        self._out.extend(frames)

    def send(self, message: Message) -> None:
        self._out.append(encode(message))

    def push(self) -> None:
        """Sends what the kernel takes. Raises Closed."""
        out = self._out
        while out:
            try:
                sent = self._sock.sendmsg(islice(out, _IOV))
            except BlockingIOError:
                break
            except OSError as error:
                raise Closed(str(error)) from error
            while sent:
                view = out.popleft()
                if len(view) > sent:
                    out.appendleft(memoryview(view)[sent:])
                    break
                sent -= len(view)
        if self._writes != bool(out):
            self._writes = bool(out)
            self._poll.modify(self._sock, select.POLLIN | (select.POLLOUT if out else 0))

    def read(self) -> list[Any]:
        """The messages that are here. Raises Closed, BadFrame."""
        return self._link.poll()

    def sleep(self, seconds: float | None) -> None:
        """Returns when there is something to read, room to write, or `wake_fd` was written to."""
        for fd, _ in self._poll.poll(None if seconds is None else seconds * 1000):
            if fd == self._wake_fd:
                os.eventfd_read(fd)

    def close(self) -> None:
        self._sock.close()
