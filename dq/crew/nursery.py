"""The supervisor's side of a template: starts it, asks it for members, starts it again when it dies.

One nursery for each place that user code comes from and each text of its script, so that edited code gets a template
of its own.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
from typing import TYPE_CHECKING

from dq.crew.peer import Peer
from dq.executor import signing
from dq.executor.frames import VERSION, Broken, Context, Fork, Hello, Preload, Ready, encode
from dq.executor.script import source_hash

if TYPE_CHECKING:
    import subprocess

    from dq.crew.kernel import Kernel
    from dq.crew.launches import Launches
    from dq.crew.members import Member
    from dq.crew.poller import Poller

BACKOFF = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds before the next try
BROKEN_WAIT = 30.0  # the same for code that could not be imported; it may lack something that comes back


class Nursery:
    """A template process. `ready` once user code is imported; `trouble` holds the traceback if that failed."""

    def __init__(
        self, context_id: int, context: Context, launches: Launches, kernel: Kernel, start_method: str, poller: Poller
    ) -> None:
        self.context_id = context_id
        self.context = context
        self.start_method = start_method
        self.trouble = ""
        self.guard = ""  # the trouble in the words of GuardMissing, if it is that
        self.broken_source = ""  # hash of the script's text that it was met in
        self.ready = False
        self.pid = 0
        self.pidfd = -1
        self.peer: Peer | None = None
        self.failures = 0
        self.retry_at = 0.0
        self.since = 0.0  # when its imports began
        self.slow = False  # whether it was told that they take long
        self.threads = 1
        self._launches = launches
        self._kernel = kernel
        self._poller = poller
        self._process: subprocess.Popen[bytes] | None = None
        self._preloaded: set[str] = set()
        self._spawned: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def key(self) -> tuple[int, str]:
        return self.context_id, self.context.source

    @property
    def spawns(self) -> bool:
        """Whether members are started afresh, since forking this template would not be safe or is not wanted."""
        return self.start_method == "spawn" or self.threads > 1

    def start(self) -> Peer:
        """Starts the template, which must not be there. Returns the connection to it."""
        self.broken_source = source_hash(self.context.script)
        peer, self._process = self._launch("serve")
        self.peer = peer
        self.pid = self._process.pid
        self.pidfd = self._kernel.open(self.pid)
        self.ready = False
        if not self.failures:
            self._preloaded = set()  # else one of them may be what the template has died of
        return peer

    def _launch(self, mode: str) -> tuple[Peer, subprocess.Popen[bytes]]:
        sock, process = self._launches.launch(mode, self.context.python or sys.executable)
        peer = Peer(sock, self._poller)
        signer = signing.own()
        key = signer.reveal() if signer is not None else b""
        peer.send(Hello(VERSION, os.getpid(), b"", self.context, key=key))
        return peer, process

    def preload(self, modules: set[str]) -> bool:
        """Has modules imported that members will need; False while the answer is awaited."""
        missing = modules - self._preloaded
        if missing and self.peer is not None and not self.spawns:
            self._preloaded |= missing
            self.ready = False
            self.peer.send(Preload(sorted(missing)))
        return self.ready

    def fork(self, member: Member, executor: str, boot_epoch: int, salt: str = "") -> None:
        """Asks for a member's process; it answers on its own socket with Joined."""
        main, child_main = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        control, child_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for sock in (main, child_main):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        order = Fork(member.kind, executor, member.slot, member.nonce, boot_epoch, salt)
        fds = [child_main.fileno(), child_control.fileno()]
        if self.spawns:
            peer, process = self._launch("spawn")
            peer.sock.setblocking(True)
            peer.write(encode(order), fds)
            peer.close()
            self._spawned[process.pid] = process
        elif self.peer is not None:
            self.peer.write(encode(order), fds)
        child_main.close()
        child_control.close()
        member.peer = Peer(main, self._poller)
        member.control = Peer(control, self._poller)

    def hear(self, message: object) -> None:
        """Takes what the template says."""
        match message:
            case Ready(threads):
                self.ready = True
                self.threads = threads
                self.failures = 0
                self.trouble = self.guard = ""
                self.slow = False
            case Broken(text, guard):
                self.trouble, self.guard = text, guard
            case _:
                pass

    def dead(self) -> bool:
        """Whether the kernel says so; reaps the process."""
        return self._process is not None and self._process.poll() is not None

    def kill(self) -> None:
        """Ends the template; what it has forked is not touched."""
        self._kernel.send(self.pidfd, signal.SIGKILL)

    def buried(self, now: float) -> None:
        """The template is dead. It is started again when it is needed and its back-off is over."""
        if self.peer is not None:
            self.peer.close()
            self.peer = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self._process = None
        if not self.ready:
            self.failures += 1
        self.retry_at = now + (BROKEN_WAIT if self.trouble else BACKOFF[min(self.failures, len(BACKOFF) - 1)])
        self.ready = False
        self.pid = 0

    def try_again(self, *, tell: bool) -> None:
        """Code that could not be imported may be mended; `tell` has the trouble told again if it is not."""
        self.failures = 0
        self.retry_at = 0.0
        if tell:
            self.trouble = ""

    def is_mended(self) -> bool:
        """Whether the script that could not be imported has another text now."""
        return bool(self.trouble) and self.peer is None and source_hash(self.context.script) != self.broken_source

    def forget(self, pid: int) -> None:
        """A spawned member is reaped."""
        process = self._spawned.pop(pid, None)
        if process is not None:
            process.returncode = 0


def nonce() -> bytes:
    return secrets.token_bytes(16)
