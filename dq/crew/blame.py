"""What is said of whoever sends what makes no sense: it loses its connection or its process, and nobody else notices."""

from __future__ import annotations

import contextlib
import sys
import traceback

from msgspec import MsgspecError

from dq.errors import StoreError
from dq.executor.frames import BadFrame
from dq.model.screen import safe

TEXT_MAX = 500  # characters of an error's text


def say(text: str) -> None:
    """Tells people on the standard error stream, which may be a file on a disk that is full."""
    with contextlib.suppress(OSError):
        sys.stderr.write(safe(f"dq: {text}\n"))
        sys.stderr.flush()


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
