"""A client's connection to the supervisor, as its users see it; what happens in its thread is in `pump`.

    users' threads ──rows, asks──►  pump (one daemon thread)  ──frames──►  supervisor
                   ◄─futures──────                            ◄──────────

Users' threads only append to two deques, which is atomic, so Ctrl-C in the middle of a call can't break anything. All
else is the pump's own. The pump sleeps in poll and is woken only when it does.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any
from zlib import crc32

from dq.client.ask import Ask
from dq.client.launcher import Launcher
from dq.client.pump import Pump
from dq.client.steps import Ordered, StepFuture
from dq.client.table import Table
from dq.errors import DqError
from dq.executor.codec import Codec, pack
from dq.executor.frames import Bye, Cancel, CancelDone, Context, Ended, Flush, Hello, Lease, Message, VERSION, Watch
from dq.model.payload import HEAD, INLINE_MAX, PICKLE

log = logging.getLogger("dq")

HIGH = 1024  # rows that may wait for the pump
HEAVY = 4 << 20  # bytes of large rows that may wait for the pump
LARGE = 4096  # bytes; smaller rows are not counted
_STALL = 0.2  # seconds

Row = tuple[int, "StepFuture[Any] | Ordered", int, bytes]

_pack_head = HEAD.pack
_all: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection:
    """See the module.

    Attributes:
        rows: (id, entry, function number, arguments) of steps to submit.
        asks: what else is to be sent.
        gate: whether `submit` must look closer before it takes a row.
        asleep: whether the pump must be woken to see what was appended.
        heavy: bytes of large rows that were appended since the pump last looked.
    """

    def __init__(self, launcher: Launcher, codec: Codec, context: Context, script: str) -> None:
        """Connects, and starts a supervisor if there is none. Raises StoreError, SupervisorLost."""
        self.codec = codec
        self.table = Table(script)
        self.rows: deque[Row] = deque()
        self.asks: deque[Ask | Message] = deque()
        self.gate = False
        self.asleep = False
        self.heavy = 0
        self.launcher = launcher
        self._pid = os.getpid()
        self._closed = False
        self._by_name = bool(script)
        self._tickets = itertools.count(1)
        self._ids = iter(range(0))
        self.blocks: deque[range] = deque()
        self._ids_lock = threading.Lock()
        self.changed = threading.Condition()
        self.waiting = 0  # threads that wait for `changed`
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        hello = Hello(VERSION, self._pid, secrets.token_bytes(16), context)
        self._pump = Pump(self, launcher, hello, self._wake_fd)
        try:
            self._pump.open()
        except BaseException:
            os.close(self._wake_fd)
            launcher.release()
            raise
        self._thread = threading.Thread(target=self._pump.run, name="dq-client", daemon=True)
        _all.add(self)
        self._thread.start()

    # Steps.

    def submit(
        self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any], entry: StepFuture[Any] | Ordered
    ) -> int:
        """Takes a step on; returns its id. Waits while too much is not on disk yet.

        Raises:
            NotPicklable: The arguments can't travel.
            RuntimeError: The connection is closed, or belongs to the process that forked this one.
            SupervisorLost: There is no supervisor and there will be none.
        """
        if self.gate or len(self.rows) >= HIGH or self.heavy > HEAVY:
            self._throttle()
        payload = self._payload(args, kwargs)
        try:
            id = next(self._ids)
        except StopIteration:
            id = self.next_id()
        if payload is None:
            payload = self._place(args, kwargs, id)
        if entry.__class__ is StepFuture:
            entry._id = id
            entry._line = self
        self.rows.append((id, entry, number, payload))
        if self.asleep:
            self.wake()
        return id
