"""The template: imports user code once, then forks workers and hosts that have it all in memory.

    python -m dq.crew.template serve|spawn FD DATABASE

It has one thread and no SQLite. It forks twice, so that the middle process ends and the kernel hands the new member
to the supervisor, which is a subreaper: the supervisor gets its exit status, and its parent-death signal watches the
right parent. In the mode `spawn` the process itself becomes the one member that it is asked for.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import NoReturn

from dq.crew.ownership import share_crew
from dq.errors import GuardMissing
from dq.executor import current, discovery, script, signing
from dq.executor.frames import HEAD, VERSION, Any, Broken, Context, Fork, Hello, Preload, Ready, decode, encode

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 300  # of 1000: how much rather the kernel takes a member than its supervisor when memory runs out
_PARENT_WAIT = 10.0  # seconds until the supervisor must have adopted a new member
_libc = ctypes.CDLL(None, use_errno=True)


class Orders:
    """The template's blocking end of its socket: frames, and the sockets that come with some of them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._inbox = bytearray()
        self._fds: list[int] = []

    def fds(self, count: int) -> list[int]:
        taken, self._fds = self._fds[:count], self._fds[count:]
        return taken

    def next(self) -> Any:
        """The next message; EOFError when the supervisor is gone."""
        while True:
            inbox = self._inbox
            if len(inbox) >= 4 and len(inbox) >= 4 + HEAD.unpack_from(inbox)[0]:
                end = 4 + HEAD.unpack_from(inbox)[0]
                body = bytes(inbox[4:end])
                del inbox[:end]
                return decode(body)
            data, rights, _, _ = self._sock.recvmsg(1 << 16, socket.CMSG_SPACE(16 * 4))
            for _level, kind, content in rights:
                if kind == socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                    self._fds += fds
            if not data:
                raise EOFError
            inbox += data

    def say(self, message: Ready | Broken) -> None:
        """Tells the supervisor, unless this is a process of its own for one member: then nobody listens."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(encode(message))


def main() -> NoReturn:
    mode, fd, db = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    supervisor = os.getppid()
    die_with(supervisor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=fd)
    orders = Orders(sock)
    try:
        for own in ("dq.executor.member", "dq.executor.berth", "dq.flow.host"):
            importlib.import_module(own)  # while the path is still dq's own
        # The supervisor has the file when it speaks; while it takes it over, nobody may hold the crew's lock.
        hello = orders.next()
        share_crew(db)  # held as long as the process and what it forks
        if not isinstance(hello, Hello) or hello.version != VERSION or hello.context is None:
            os._exit(2)
        signing.use(hello.key)
        _import(hello.context, orders)
        serve(orders, sock, db, supervisor, mode)
    except (EOFError, ConnectionResetError):
        os._exit(0)  # the supervisor is gone
    os._exit(1)


def _import(context: Context, orders: Orders) -> None:
    """Brings user code in, as the script would: same folder, same path, but under another name than `__main__`."""
    current.IN_TEMPLATE = True
    try:
        script.enter(context)
    except BaseException as error:  # noqa: BLE001 -- a script may raise anything, sys.exit included
        orders.say(Broken(_told(error, context.script), str(error) if isinstance(error, GuardMissing) else ""))
        os._exit(1)
    gc.collect()
    gc.freeze()
    orders.say(Ready(_threads()))


def _told(error: BaseException, script: str) -> str:
    """The traceback from the script's own first line on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != script:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames, limit=-8)).rstrip()


def _threads() -> int:
    """Threads of this process as the kernel counts them; an import may have started some outside Python."""
    return max(threading.active_count(), len(os.listdir("/proc/self/task")))


def serve(orders: Orders, sock: socket.socket, db: str, supervisor: int, mode: str) -> None:
    while True:
        order = orders.next()
        if isinstance(order, Preload):
            _preload_all(order.modules, orders)
        if not isinstance(order, Fork):
            continue
        fds = orders.fds(2)
        _preload(order)
        if mode == "spawn":
            os.setsid()
            member(order, fds, db)
        middle = os.fork()
        if middle == 0:
            _grandchild(order, fds, db, sock, supervisor)
        for fd in fds:
            os.close(fd)
        os.waitpid(middle, 0)


def _preload_all(modules: list[str], orders: Orders) -> None:
    """Imports modules of user code. One that fails here fails again where it is used, and is told there."""
    for name in modules:
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    orders.say(Ready(_threads()))


def _preload(order: Fork) -> None:
    """Imports what the member needs, once for all that are forked. What fails here fails there again, and is told."""
    with contextlib.suppress(Exception):
        if order.kind != "host":
            discovery.load(discovery.parse(order.executor).name)


def _grandchild(order: Fork, fds: list[int], db: str, sock: socket.socket, supervisor: int) -> NoReturn:
    try:
        if os.fork() == 0:
            sock.close()
            os.setsid()
            _await_parent(supervisor)
            member(order, fds, db)
    finally:
        os._exit(0)


def _await_parent(supervisor: int) -> None:
    """Waits until the middle process is gone and the supervisor is the parent."""
    deadline = time.monotonic() + _PARENT_WAIT
    while os.getppid() != supervisor:
        if time.monotonic() > deadline:
            os._exit(3)
        os.sched_yield()
    die_with(supervisor)


def die_with(parent: int) -> None:
    """Asks the kernel to kill this process with its parent. The parent may be gone already: hence the second look."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(3)


def _go_first() -> None:
    """Has the kernel take this process before the supervisor when memory runs out: that one holds everybody's work."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
        file.write(b"%d" % min(1000, int(file.read()) + _OOM_SCORE))


def member(order: Fork, fds: list[int], db: str) -> NoReturn:
    """This process is a member from now on."""
    from dq.executor.berth import Berth

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _go_first()
    berth = Berth(
        kind=order.kind,
        executor=order.executor,
        slot=order.slot,
        nonce=order.nonce,
        boot_epoch=order.boot_epoch,
        sock=socket.socket(fileno=fds[0]),
        control=socket.socket(fileno=fds[1]),
        slots_path=db + ".slots",
        blobs=db + ".blobs",
        salt=order.salt,
    )
    try:
        if order.kind == "host":
            from dq.flow import host

            host.main(berth)
        from dq.executor import member as worker

        worker.main(berth)
    except BaseException:  # noqa: BLE001 -- the last line of a process
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()
