"""A machine that is played: its clock, its processes, and the ends of their sockets."""

from __future__ import annotations

import array
import os
import random
import select
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dq.crew.kernel import Exit, Look
from dq.crew.launches import Launch
from dq.executor.frames import HEAD, Fork, Hello, Message, Preload, Ready, decode, encode

if TYPE_CHECKING:
    import subprocess

SECOND = 1_000_000
START = 1_764_000_000 * SECOND
EPOLL = select.epoll
RIGHTS = socket.CMSG_SPACE(16 * 4)


class Clock:
    """Two views of one time: the wall's may be set, the other one only goes on."""

    def __init__(self) -> None:
        self.wall, self.steady = START, 1000 * SECOND

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.steady / SECOND

    def passes(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)
        self.steady += round(seconds * SECOND)


class Pipe:
    """A process's end of a stream: what it has said leaves in pieces, when chance lets it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock, self.out, self.gone = sock, bytearray(), False
        self._inbox = bytearray()
        self.fds: list[int] = []

    def say(self, message: Message) -> None:
        self.out += encode(message)

    def flows(self, count: int) -> int:
        """Lets up to so many bytes go; how many went."""
        if not self.out or self.gone:
            return 0
        try:
            sent = self.sock.send(self.out[:count])
        except BlockingIOError:
            return 0
        except OSError:
            self.gone = True
            return 0
        del self.out[:sent]
        return sent

    def hears(self, most: int = 1 << 16) -> list[Any]:
        """The messages that are whole, of what has come."""
        try:
            data, rights, _, _ = self.sock.recvmsg(most, RIGHTS)
        except BlockingIOError:
            return []
        except OSError:
            data, rights = b"", []
        self.gone = self.gone or not data
        for _, _, content in rights:
            fds = array.array("i")
            fds.frombytes(content)
            self.fds += fds
        self._inbox += data
        found: list[Any] = []
        while len(self._inbox) >= 4 and len(self._inbox) >= 4 + (length := HEAD.unpack_from(self._inbox)[0]):
            found.append(decode(bytes(self._inbox[4 : 4 + length])))
            del self._inbox[: 4 + length]
        return found

    def close(self) -> None:
        self.sock.close()
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()


class Process:
    """What all processes have: a number, pipes, and an end."""

    kind = "process"

    def __init__(self, machine: Machine, *socks: socket.socket) -> None:
        self.machine = machine
        self.pid = machine.number(self)
        self.pipes = [Pipe(sock) for sock in socks]
        self.alive, self.paused, self.condemned = True, False, False
        self._told: list[int] = []

    def watched(self) -> int:
        fd = os.eventfd(0 if self.alive else 1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._told.append(os.dup(fd))
        return fd

    def dies(self) -> None:
        """Ends at once; what has left its pipes is with its reader, what has not is lost."""
        if self.alive:
            self.alive = False
            self.ended()
            for pipe in self.pipes:
                pipe.close()
            for fd in self._told:
                os.eventfd_write(fd, 1)
            self.forgets()

    def forgets(self) -> None:
        for fd in self._told:
            os.close(fd)
        self._told.clear()

    def ended(self) -> None:
        pass

    def acts(self) -> bool:
        """Does the next thing; whether there was one."""
        return False


class Template(Process):
    """Imports nothing, and makes members."""

    kind = "template"

    def acts(self) -> bool:
        pipe = self.pipes[0]
        heard = pipe.hears()
        for message in heard:
            if isinstance(message, Hello | Preload):
                pipe.say(Ready(1))
            elif isinstance(message, Fork):
                fds, pipe.fds = pipe.fds[:2], pipe.fds[2:]
                self.machine.bear(message, *[socket.socket(fileno=fd) for fd in fds])
        return bool(pipe.flows(1 << 20) or heard)

    def poll(self) -> int | None:
        """As a Popen has it."""
        return None if self.alive else -signal.SIGKILL


class Epoll:
    """The kernel's, but it tells of what is ready in whatever order: none is promised."""

    def __init__(self, chance: random.Random) -> None:
        self._real, self._chance = EPOLL(), chance
        self.register, self.modify = self._real.register, self._real.modify
        self.unregister, self.close = self._real.unregister, self._real.close

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        events = self._real.poll(timeout)
        self._chance.shuffle(events)
        return events


class Machine:
    """All processes but the supervisor; answers the supervisor in the kernel's place."""

    def __init__(self, chance: random.Random, clock: Clock, trace: Callable[..., None]) -> None:
        self.chance, self.clock, self.trace = chance, clock, trace
        self.processes: dict[int, Process] = {}
        self.bear: Callable[[Fork, socket.socket, socket.socket], None]
        self._last = 5000

    def number(self, process: Process) -> int:
        self._last += 1
        self.processes[self._last] = process
        return self._last

    def living(self, kind: str = "") -> list[Process]:
        return [one for one in self.processes.values() if one.alive and kind in ("", one.kind)]

    def launch(self, _mode: str, _python: str) -> Launch:
        ours, theirs = socket.socketpair()
        process: Any = Template(self, theirs)
        started: subprocess.Popen[bytes] = process
        return Launch(ours, started)

    def open(self, pid: int) -> int:
        if pid not in self.processes or not self.processes[pid].alive:
            raise ProcessLookupError
        return self.processes[pid].watched()

    def kill(self, pid: int, _pidfd: int) -> None:
        """A death is asked for; it comes a moment later, since a process may be anywhere in the kernel."""
        self.trace("kill", pid)
        self.processes[pid].condemned = True

    def send(self, _pidfd: int, number: int) -> None:
        self.trace("signal", number)

    def reap(self, pid: int, _pidfd: int) -> Exit | None:
        process = self.processes[pid]
        return None if process.alive else Exit(signal.SIGKILL, 1024)

    def look(self, pid: int) -> Look | None:
        process = self.processes[pid]
        return Look(process.paused, self.clock.monotonic()) if process.alive else None
