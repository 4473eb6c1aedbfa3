"""What is said of whoever sends what makes no sense: it loses its connection or its process, and nobody else notices."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import traceback

from msgspec import MsgspecError

from dq.errors import StoreError
from dq.executor.frames import BadFrame
from dq.model.screen import safe

TEXT_MAX = 500  # characters of an error's text


def say(text: str) -> None:
    """Tells people on the standard error stream, and drops it where that takes nothing now.

    The stream may be a file on a disk that is full, or a pipe that steps have filled and nobody reads: a supervisor that
    waited there would keep everybody waiting.
    """
    told = safe(f"dq: {text}\n")
    with contextlib.suppress(OSError):
        fd, mode = _stream()
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            _write(fd, told.encode("utf-8", "replace"))
        elif stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(fd)) as sock:
                sock.send(told.encode("utf-8", "replace"), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        else:
            sys.stderr.write(told)
            sys.stderr.flush()


def _stream() -> tuple[int, int]:
    """The descriptor of the standard error stream and what is behind it; (-1, 0) where it has none."""
    try:
        fd = sys.stderr.fileno()
        return fd, os.fstat(fd).st_mode
    except (OSError, ValueError):  # somebody has put something else in its place
        return -1, 0


def _write(fd: int, told: bytes) -> None:
    """Through a description of its own, since one that does not wait would be that of all who share the stream."""
    own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        os.write(own, told)
    finally:
        os.close(own)


def blame(who: str, error: Exception) -> str:
    """Tells people why somebody goes, and returns it as a sentence; an unforeseen error keeps its traceback.

    Raises StoreError again: that is the file's trouble, and not his who wrote to it.
    """
    if isinstance(error, StoreError):
        raise error
    why = f"sent what makes no sense ({repr(error)[:TEXT_MAX]})"
    trail = (
        ""
        if isinstance(error, (BadFrame, MsgspecError, UnicodeDecodeError))
        else "\n" + "".join(traceback.format_exception(error))
    )
    say(f"{who} {why}, and is sent away{trail}")
    return why
