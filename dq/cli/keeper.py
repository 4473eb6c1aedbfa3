"""Keeps a supervisor alive: starts it, starts it again when it dies, and passes signals on."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator

from dq.client.launcher import Launcher
from dq.errors import DatabaseInUse

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0  # seconds before a supervisor that died is started again
_HEALTHY = 10.0  # seconds of life after which a death counts as the first one again
_PATIENCE = 2.0  # seconds for another owner of the file to leave
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Keeper:
    """The parent of a supervisor.

    Args:
        launcher: Starts supervisors.
        say: Shows a line.
    """

    def __init__(self, launcher: Launcher, say: Callable[[str], None]) -> None:
        self._launcher = launcher
        self._say = say
        self._stopping = 0  # signals passed on so far
        self._deaths = 0

    def keep(self, is_idle: Callable[[], bool] | None = None, glance: float = 0.2) -> int:
        """Keeps the supervisor going until a signal, or `is_idle`, asks for the end. Returns its last exit code.

        Args:
            is_idle: Asked every `glance` seconds; None to go on for ever.
            glance: Seconds.

        Raises:
            StoreError: The file can't be used; DatabaseInUse where somebody else works on it already.
        """
        with _heard() as bell:
            self._start_first()
            while True:
                pid, born = self._launcher.child, time.monotonic()
                self._say(f"working on {self._launcher.db} (supervisor {pid}); Ctrl-C drains, twice hands back at once")
                code = self._attend(pid, bell, is_idle, glance)
                if self._stopping:
                    return code
                self._deaths = 0 if time.monotonic() - born > _HEALTHY else self._deaths
                self._say(f"the supervisor {pid} {_ending(code)}; starting its successor")
                if not self._restart(bell):
                    return 0

    def _start_first(self) -> None:
        """Waits a moment for an owner that leaves at once, such as one that has only put a run on record."""
        give_up = time.monotonic() + _PATIENCE
        while True:
            try:
                self._launcher.start()
            except DatabaseInUse:
                if time.monotonic() > give_up:
                    raise
                time.sleep(_FIRST_PAUSE)
            else:
                return

    def _attend(self, pid: int, bell: socket.socket, is_idle: Callable[[], bool] | None, glance: float) -> int:
        """Waits for the supervisor's end, and passes on what is heard meanwhile. Returns its exit code."""
        if not pid:
            return 0
        process = os.pidfd_open(pid)
        try:
            while True:
                asking = is_idle is not None and not self._stopping
                ready, _, _ = select.select([process, bell.fileno()], [], [], glance if asking else None)
                if process in ready:
                    return _exit_code(pid)
                if ready:
                    self._pass_on(process, len(bell.recv(64)))
                elif asking and is_idle is not None and is_idle():
                    self._pass_on(process, 1)
        finally:
            os.close(process)

    def _pass_on(self, process: int, times: int) -> None:
        """Tells the supervisor to stop, a second time to stop at once; two that are pending would count as one."""
        for _ in range(times):
            self._stopping += 1
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGTERM if self._stopping == 1 else signal.SIGINT)

    def _restart(self, bell: socket.socket) -> bool:
        """Starts a successor, unless a client has done so: then waits until that one is gone. False after a signal."""
        while True:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._deaths) * random.uniform(0.5, 1.0)
            if select.select([bell], [], [], pause if self._deaths else 0)[0]:
                return False
            self._deaths += 1
            try:
                self._launcher.start()
            except DatabaseInUse:
                continue
            return True


def _exit_code(pid: int) -> int:
    """How a child ended, without taking its status from whoever reaps it: negative for a signal."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    if found is None:
        return 0
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


@contextlib.contextmanager
def _heard() -> Iterator[socket.socket]:
    """A socket that gets a byte for each signal that asks to stop."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in _SIGNALS}
    fd = signal.set_wakeup_fd(theirs.fileno())
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()
