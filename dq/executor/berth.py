"""A berth: what a new member process finds in place, and how it reports for work.

A member is a worker, a bridge or a host. The template forks it and builds its Berth; from there on

    berth = Berth(kind="worker", executor="process:4", slot=3, nonce=..., boot_epoch=7, sock=..., control=...,
                  slots_path="F.db.slots", blobs="F.db.blobs")
    link = Link(berth.sock)
    slot = berth.report_for_work(link, on_revoke=give_back, on_stop=stop)     # -> SlotWriter
    ... link.receive() ...

`dq.executor.member.main` does so for workers and bridges, `dq.flow.host.main` for hosts; neither returns.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from dq.executor import current, stacks
from dq.executor.frames import BadFrame, GaveBack, Joined, Notice, Revoke, Stop, Unfit
from dq.executor.link import Closed, Link
from dq.executor.slots import HOST, WORKER, SlotWriter, open_slots

BEAT = 0.5  # seconds

# Exit codes of members, as the supervisor sees them.
LEFT, ORPHANED, UNFIT, GARBLED = 0, 81, 82, 83

GivenBack = list[tuple[int, int]]  # (epoch, step) of each


@dataclass
class Berth:
    """The place of one member process.

    Attributes:
        kind: "worker" (a bridge is one too) or "host".
        executor: The executor's spec, such as "process:4"; "" for a host.
        slot: The number of its slot in the slots file.
        nonce: 16 random bytes that tell this process from any other.
        boot_epoch: The supervisor's.
        sock: The connected stream socket for work: Define, Claim, Results, Assign, ...
        control: The connected stream socket for Revoke, GaveBack and Stop; its end of file means that the supervisor
            is gone.
        slots_path: The slots file, "F.db.slots".
        blobs: The folder of side files, "F.db.blobs".
        salt: What tells the database from all others, wherever it lies; "" where the slots file's place must do.
    """

    kind: str
    executor: str
    slot: int
    nonce: bytes
    boot_epoch: int
    sock: socket.socket
    control: socket.socket
    slots_path: str
    blobs: str
    salt: str = ""

    def report_for_work(
        self,
        link: Link,
        *,
        on_revoke: Callable[[], GivenBack] | None = None,
        on_stop: Callable[[], None] | None = None,
        on_beat: Callable[[], Notice | None] | None = None,
    ) -> SlotWriter:
        """Settles in: signals, stack dumps, the signed slot, the control thread, and last the Joined frame.

        Call it once, in the main thread, when everything that may fail at start-up has been done; for what failed, call
        `unfit` instead. From then on a daemon thread raises the slot's beat twice a second and serves the control
        socket. All three callbacks run in that thread, so what they touch must bear it.

        Args:
            link: The link over `sock`. Joined is the first frame on it.
            on_revoke: Takes back all work that has not begun, and returns (epoch, step) of each; the answer GaveBack
                is sent from it.
            on_stop: Stop has come on the control socket, and what `on_revoke` takes back is sent as GaveBack already:
                make the main thread finish what is begun, then leave. A main thread that blocks in `link.receive()` is
                woken with `berth.sock.shutdown(socket.SHUT_RD)`: it then gets Closed. None: the process ends at once.
            on_beat: Called with each beat, for what is overdue. What it returns is sent to the supervisor, for people.

        Returns:
            The writer of this process's own slot.

        Raises:
            OSError: The slots file can't be mapped.
            Closed: The supervisor is gone already.
        """
        _settle_signals()
        stacks.install(self.slots_path, self.slot)
        os.register_at_fork(after_in_child=self._let_go)
        current.IN_TEMPLATE = False
        slots_path = os.path.abspath(self.slots_path)
        current.settle(self.salt or slots_path, slots_path.removesuffix(".slots"))
        slot = SlotWriter(open_slots(self.slots_path), self.slot)
        started = start_ticks(os.getpid())
        kind = HOST if self.kind == "host" else WORKER
        slot.own(self.boot_epoch, os.getpid(), started, self.nonce, kind)
        control = _Control(self.control, slot, on_revoke, on_stop, on_beat)
        threading.Thread(target=control.serve, name="dq-control", daemon=True).start()
        link.send(Joined(os.getpid(), started, self.nonce))
        return slot

    def _let_go(self) -> None:
        """A process that user code forks must neither speak for this one nor keep its death from being seen."""
        self.sock.close()
        self.control.close()

    def unfit(self, link: Link, text: str) -> None:
        """Says instead of Joined that this member can't start, and why. The caller exits with UNFIT."""
        link.send(Unfit(text))


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat: when a process was started, in clock ticks since boot. Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The second field is the command's name, which may hold spaces and parentheses.
        return int(file.read().rpartition(b")")[2].split()[19])


def _settle_signals() -> None:
    """Ctrl-C goes to the whole foreground group; what it means is the supervisor's to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class _Control:
    """The thread beside the work: beats, and answers while the main thread is in a body."""

    def __init__(
        self,
        sock: socket.socket,
        slot: SlotWriter,
        on_revoke: Callable[[], GivenBack] | None,
        on_stop: Callable[[], None] | None,
        on_beat: Callable[[], Notice | None] | None,
    ) -> None:
        self._link = Link(sock)
        self._slot = slot
        self._on_revoke = on_revoke
        self._on_stop = on_stop
        self._on_beat = on_beat

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self._link.fileno(), select.POLLIN)
        code = ORPHANED
        try:
            while True:
                if poll.poll(BEAT * 1000):
                    for message in self._link.receive():
                        self._answer(message)
                self._slot.beat()
                told = self._on_beat() if self._on_beat is not None else None
                if told is not None:
                    self._link.send(told)
        except BadFrame:
            code = GARBLED
        except Closed:
            pass
        finally:
            # Without a supervisor nobody can take a result, and a successor waits for this process to be gone.
            os._exit(code)

    def _answer(self, message: object) -> None:
        if not isinstance(message, (Revoke, Stop)):
            raise BadFrame(f"a {type(message).__name__} on the control socket")
        self._link.send(GaveBack(self._on_revoke() if self._on_revoke is not None else []))
        if isinstance(message, Stop):
            if self._on_stop is None:
                os._exit(LEFT)
            self._on_stop()
