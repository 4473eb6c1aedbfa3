"""How the body of a step says how far it has come: at once, on the way that its result will take."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dq.errors import DqError
from dq.executor import signing
from dq.executor.codec import Large, pack
from dq.executor.contract import Job
from dq.executor.current import running
from dq.model.payload import INLINE_MAX

_send: Callable[[Job, bytes], None] | None = None  # the way to the supervisor, in a process that has one
_pid = 0


def connect(send: Callable[[Job, bytes], None]) -> None:
    """Names the way to the supervisor. It may be used from any thread."""
    global _send, _pid
    _send, _pid = send, os.getpid()


def tell(cursor: Any) -> None:
    """Sends a cursor for the step that runs here; does nothing where none does. Raises like `dq.progress`."""
    job = running.get()
    if job is None:
        return
    if _send is None or _pid != os.getpid():
        raise DqError(
            "dq.progress(...) can't be sent from this process: it is not the one that was given the step. Call it in the "
            "step's own process; steps of executors that run them on other machines can't use it"
        )
    payload = pack(cursor, "cursor")
    if isinstance(payload, Large):
        size = len(payload.data) + sum(buffer.nbytes for buffer in payload.buffers)
        raise ValueError(
            f"the cursor given to dq.progress has {size} bytes, and may have {INLINE_MAX}: it says how far the step has "
            "come. Write what it has made to a file, and give the file's name"
        )
    _send(job, signing.sealed(signing.VALUE, payload))
