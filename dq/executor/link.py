"""A link: a blocking stream socket that carries whole messages."""

from __future__ import annotations

import select
import socket
from typing import Any

from dq.executor.frames import FRAME_MAX, HEAD, BadFrame, Message, decode, encode

_BUFFER = 128 << 10  # bytes; a larger one costs a new process more page faults than it saves reads


class Closed(ConnectionError):
    """The other end is gone."""


class Link:
    """One end of a connection, for one thread that receives and one that sends.

    Example:
        link = Link(sock)
        link.send(Flush(7))
        for message in link.receive():
            ...
    """

    def __init__(self, sock: socket.socket, *, limit: int = FRAME_MAX) -> None:
        """Takes a connected stream socket over. `limit` is the longest frame that is accepted, in bytes.

        A timeout of the socket holds: `receive` then raises TimeoutError, and can be called again.
        """
        self.sock = sock
        self._limit = limit
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0  # the bytes that are received and not decoded
        self._garbage: BadFrame | None = None

    def fileno(self) -> int:
        """For select and poll: nothing that is complete waits in the link once `receive` has returned."""
        return self.sock.fileno()

    @property
    def pending(self) -> int:
        """How many bytes of an incomplete frame are here already."""
        return self._end - self._start

    def send(self, message: Message) -> None:
        """Sends one message, and waits until the kernel has taken it. Raises Closed."""
        self.send_bytes(encode(message))

    def send_bytes(self, frame: bytes | bytearray | memoryview) -> None:
        """Sends whole frames that are encoded already. Raises Closed."""
        try:
            self.sock.sendall(frame)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed("the other end of the connection is gone") from error

    def receive(self) -> list[Any]:
        """Waits for at least one message and returns all that are complete.

        Raises:
            Closed: The other end is gone, and everything that it had sent was returned before.
            BadFrame: Garbage arrived, and everything before it was returned. The link is of no more use.
        """
        messages: list[Any] = []
        while not messages:
            self._fill(0)
            self._take(messages)
        return messages

    def poll(self) -> list[Any]:
        """The messages that are here now, perhaps none; never waits. Raises like `receive`."""
        messages: list[Any] = []
        if self.sock.gettimeout() and not self._readable():  # such a socket does not honour MSG_DONTWAIT
            return messages
        try:
            self._fill(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return messages
        self._take(messages)
        return messages

    def close(self) -> None:
        """Closes the socket."""
        self.sock.close()

    def _readable(self) -> bool:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def _fill(self, flags: int) -> None:
        """One read into the free part of the buffer; `_take` has seen to it that there is one."""
        if self._garbage is not None:
            raise self._garbage
        try:
            count = self.sock.recv_into(self._buffer[self._end :], 0, flags)
        except ConnectionResetError as error:
            raise Closed("the other end of the connection is gone") from error
        if count == 0:
            raise Closed("the other end has closed the connection")
        self._end += count

    def _take(self, messages: list[Any]) -> None:
        """Decodes what is complete and makes room for the rest of what is not."""
        need = HEAD.size
        try:
            while self._end - self._start >= HEAD.size:
                need = HEAD.size + self._length()
                if self._end - self._start < need:
                    break
                messages.append(decode(self._buffer[self._start + HEAD.size : self._start + need]))
                self._start += need
                need = HEAD.size
        except BadFrame as error:
            if not messages:
                raise
            self._garbage = error
        self._make_room(need)

    def _length(self) -> int:
        length = int(HEAD.unpack_from(self._buffer, self._start)[0])
        if length > self._limit:
            raise BadFrame(f"a frame of {length} bytes; the longest allowed is {self._limit}")
        return length

    def _make_room(self, need: int) -> None:
        """Moves an incomplete frame of `need` bytes where it fits as a whole; large frames get a buffer of their own."""
        rest = self._buffer[self._start : self._end]
        if need > len(self._buffer):
            larger = memoryview(bytearray(need))
            larger[: len(rest)] = rest
            self._buffer = larger
        elif len(rest) == 0 and len(self._buffer) > _BUFFER:
            self._buffer = memoryview(bytearray(_BUFFER))
        elif len(rest) == 0:
            pass
        elif self._start + need > len(self._buffer):
            self._buffer[: len(rest)] = bytes(rest)
        else:
            return
        self._start, self._end = 0, len(rest)
