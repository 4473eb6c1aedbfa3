"""Forks members for the conformance suite, from a process that has one thread as a template has.

    python -m dq.testing.forge FD

Each packet on the socket FD is a JSON object: {"path": [...], "spec": ...} first; {"fork": {...}} with two sockets is
answered by {"pid": ...}, and {"wait": PID} by {"code": ...}.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import Any, NoReturn

from dq.errors import BadExecutor
from dq.executor import discovery, member
from dq.executor.berth import Berth

_PACKET = 1 << 18


def main(fd: int) -> None:
    """Serves until the other end of the socket is closed."""
    sock = socket.socket(fileno=fd)
    while True:
        packet, fds, _, _ = socket.recv_fds(sock, _PACKET, 2)
        if not packet:
            return
        order = json.loads(packet)
        if "path" in order:
            sys.path[:] = order["path"]
            with contextlib.suppress(BadExecutor):  # then the member says so
                discovery.load(discovery.parse(order["spec"]).name)
        elif "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            sock.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())
        else:
            sock.send(json.dumps({"pid": _fork(sock, order["fork"], fds)}).encode())


def _fork(sock: socket.socket, order: dict[str, Any], fds: list[int]) -> int:
    pid = os.fork()
    if pid == 0:
        sock.close()
        _become(order, fds)
    for fd in fds:
        os.close(fd)
    return pid


def _become(order: dict[str, Any], fds: list[int]) -> NoReturn:
    work, control = (socket.socket(fileno=fd) for fd in fds)
    nonce = bytes.fromhex(order.pop("nonce"))
    member.main(Berth(kind="worker", sock=work, control=control, nonce=nonce, **order))


if __name__ == "__main__":
    main(int(sys.argv[1]))
