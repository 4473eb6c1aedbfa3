"""The door: where clients come in, say who they are, and go."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING

from dq.crew.blame import blame, say
from dq.crew.peer import Peer
from dq.executor import frames, signing
from dq.executor.frames import BadFrame

if TYPE_CHECKING:
    from dq.crew.supervisor import Supervisor


CROWDED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
AGAIN = 0.5  # seconds until the door is opened again that was shut since the system has no room
STRANGER_MAX = 1 << 20  # bytes of a frame from somebody who has not introduced himself


class Door:
    """Accepts connections of the supervisor's own user, and lets in whoever speaks its version of the protocol."""

    def __init__(self, supervisor: Supervisor, listener: socket.socket) -> None:
        self._sup = supervisor
        self._clients = supervisor.clients
        self._listener = listener
        self._strangers: set[Peer] = set()
        self._told = False
        listener.setblocking(False)
        supervisor.poller.register(listener.fileno(), self._on_listener)

    def _on_listener(self, _mask: int) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if error.errno in CROWDED:
                    self._shut(error)
                return
            self._told = False
            if not same_user(sock):
                sock.close()
                continue
            peer = Peer(sock, self._sup.poller, STRANGER_MAX)
            self._strangers.add(peer)
            self._sup.poller.handle(peer.fd, partial(self._on_client, peer))

    def _shut(self, error: OSError) -> None:
        """The system has no descriptor for another client. Who knocks would be heard in each turn, and burn a processor."""
        self._sup.poller.unregister(self._listener.fileno())
        self._sup.timers.at(self._sup.clock.monotonic() + AGAIN, self._open)
        if not self._told:
            self._told = True
            self._sup.notice(
                f"no client can be let in: {error.strerror}. The supervisor (pid {self._sup.pid}) goes on with those that it has "
                f"and lets others in when that is over. `ls /proc/{self._sup.pid}/fd | wc -l` counts its descriptors; "
                "`ulimit -n` before it starts gives it more."
            )

    def _open(self) -> None:
        self._sup.poller.register(self._listener.fileno(), self._on_listener)

    def _on_client(self, peer: Peer, mask: int) -> None:
        if mask & select.EPOLLOUT:
            peer.flush()
        try:
            messages = peer.read()
            for message in messages:
                client = self._clients.all.get(peer.fd)
                if client is None:
                    self._introduce(peer, message)
                elif not self._clients.hear(client, message):
                    raise BadFrame(f"{type(message).__name__} from a client")
        except Exception as error:  # noqa: BLE001 -- what a client sends is its own end, and nobody else's
            told = blame("a client", error)
            peer.send(frames.Refused(0, "DqError", f"this client {told}; the supervisor goes on without it"))
            peer.closed = True
        if peer.closed:
            self._client_gone(peer)

    def _introduce(self, peer: Peer, message: frames.Any) -> None:
        if not isinstance(message, frames.Hello) or message.version != frames.VERSION:
            pid = self._sup.pid
            text = (
                f"this supervisor (pid {pid}) speaks version {frames.VERSION} of the protocol, and was spoken to in another: "
                f"two versions of dq meet on one file. Stop it with `kill {pid}` (it drains first; what is not done stays "
                "on record), then start one of your version with `dq up`, or open your engine again."
            )
            say(f"a client is sent away: it sent what makes no sense here ({type(message).__name__}). {text}")
            peer.send(frames.Refused(0, "DqError", text))
            peer.closed = True
            return
        if message.mark != signing.mark():
            peer.send(frames.Refused(0, "SignatureMismatch", _other_key(self._sup.pid, message.mark)))
            peer.closed = True
            return
        self._strangers.discard(peer)
        peer.limit = frames.FRAME_MAX
        self._clients.welcome(peer, message)

    def _client_gone(self, peer: Peer) -> None:
        client = self._clients.all.get(peer.fd)
        self._strangers.discard(peer)
        self._clients.leaving.discard(peer)
        if client is not None:
            self._clients.gone(client)
            if self._clients.leave_nobody():
                self._sup.stop("its last client is gone", now=False)
        peer.close()

    def nobody_came(self) -> None:
        if not self._clients.seen:
            self._sup.stop("nobody has connected", now=True)


def _other_key(pid: int, theirs: bytes) -> str:
    mine = "a signing key" if signing.mark() else "no signing key"
    yours = "none" if not theirs else "another one" if signing.mark() else "one"
    return (
        f"this supervisor (pid {pid}) works with {mine}, and you have {yours}: what you hand over would be refused by its "
        "workers. Nothing was done. Use the same key on both sides (dq.Engine(path, signing_key=...), "
        f"`dq --signing-key-file FILE ...`), or stop it with `kill {pid}` and start one with yours."
    )


def same_user(sock: socket.socket) -> bool:
    """Whether the process at the other end belongs to the user that the supervisor runs as."""
    _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(uid == os.geteuid())
