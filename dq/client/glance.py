"""A look at the supervisor of a file by somebody who brings no work and leaves nothing behind."""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING

from dq.client.census import Crew, Member
from dq.executor import frames, signing
from dq.executor.link import Closed, Link

if TYPE_CHECKING:
    import socket


def glance(sock: socket.socket, seconds: float) -> Crew | None:
    """Who is at work; None where the supervisor sends this process away, or ends meanwhile.

    It names no place that code comes from, so the supervisor puts nothing on record for it. The socket is closed.

    Args:
        sock: A socket that `dq.client.sock.dial` has connected.
        seconds: How long to wait for the answer.

    Raises:
        TimeoutError: There was no answer in that time.
        BadFrame: The answer makes no sense.

    Example:
        crew = glance(dial("movie.db"), seconds=5)
    """
    link, until = Link(sock), time.monotonic() + seconds
    try:
        link.sock.settimeout(seconds)
        link.send(frames.Hello(frames.VERSION, os.getpid(), secrets.token_bytes(16), None, mark=signing.mark()))
        link.send(frames.Census(1))
        while True:
            for message in link.receive():
                match message:
                    case frames.Crew():
                        rows = [Member(*row) for row in message.rows]
                        return Crew(message.boot_epoch, rows, message.pending, message.claimed, message.stale)
                    case frames.Refused():
                        return None
                    case _:
                        continue
            link.sock.settimeout(max(0.001, until - time.monotonic()))
    except Closed:
        return None
    finally:
        link.close()
