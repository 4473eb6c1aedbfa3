"""What the supervisor asks the operating system about processes, so that a simulation can answer in its place."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NamedTuple, Protocol

from dq.crew.kin import kin


class Exit(NamedTuple):
    """How a process ended: wait status (-1: somebody else took it) and peak of resident memory in KiB."""

    status: int
    rss: int


class Look(NamedTuple):
    """What a process is at: whether it is stopped, and the seconds of processor time that it has spent."""

    stopped: bool
    spent: float


class Kernel(Protocol):
    """Processes by their descriptors, which never mean another one than the one that was meant."""

    def open(self, pid: int) -> int:
        """A descriptor of a process, readable when it is dead. Raises ProcessLookupError."""
        ...

    def kill(self, pid: int, pidfd: int) -> None:
        """Kills a member's whole group, and its descendants in groups of their own."""
        ...

    def send(self, pidfd: int, number: int) -> None:
        """Sends a signal to one process, which may be gone."""
        ...

    def reap(self, pid: int, pidfd: int) -> Exit | None:
        """Takes a dead member's exit status and kills what is left of its group. None: it is not dead."""
        ...

    def look(self, pid: int) -> Look | None:
        """What a process is at; None where it is gone."""
        ...


class Linux:
    """The real one."""

    def open(self, pid: int) -> int:
        return os.pidfd_open(pid)

    def kill(self, pid: int, pidfd: int) -> None:
        with kin(pid) as found:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            for fd in found:
                self.send(fd, signal.SIGKILL)

    def send(self, pidfd: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)

    def reap(self, pid: int, pidfd: int) -> Exit | None:
        # While the dead process is not reaped, its number and that of its group are nobody else's.
        try:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
        except ChildProcessError:
            return None if _alive(pidfd) else Exit(-1, 0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        return Exit(status, usage.ru_maxrss)

    def look(self, pid: int) -> Look | None:
        import psutil

        try:
            process = psutil.Process(pid)
            state, times = process.status(), process.cpu_times()
        except psutil.NoSuchProcess:
            return None
        stopped = state in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        return Look(stopped, float(times.user + times.system))


def _alive(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    return True
