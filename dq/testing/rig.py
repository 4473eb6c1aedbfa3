"""The other end of a member: what a supervisor would say to it, one call each."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from dq.executor import discovery, stacks
from dq.executor.codec import Codec
from dq.executor.contract import Executor
from dq.executor.frames import Claim, GaveBack, Joined, Results, Revoke, Stop
from dq.executor.functions import define
from dq.executor.link import Closed, Link
from dq.executor.slots import Entry, Identity, SlotReader, open_slots
from dq.model.states import COMPLETED

PATIENCE = 30.0  # seconds until a test gives a member up
BOOT = 7  # the boot_epoch of all members here

T = TypeVar("T")


class Row(NamedTuple):
    """A row of Results, with the frame's epoch."""

    epoch: int
    step: int
    status: int
    payload: bytes
    began_at: int
    busy: int


def wait_until(condition: Callable[[], T | None], what: str) -> T:
    """Waits until a condition is neither None nor False, and returns it. Raises AssertionError after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value is not None and value is not False:
            return value
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE:g} s"
        time.sleep(0.002)


class Forge:
    """A process that forks members. One serves many tests.

    Example:
        with Forge("process:2") as forge:
            member = forge.member(folder)
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.size = discovery.parse(spec).size
        self.executor: type[Executor] = discovery.load(discovery.parse(spec).name)
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(PATIENCE)
        fd = theirs.fileno()
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "dq.testing.forge", str(fd)]
        self._process = subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, env=env)
        theirs.close()
        self._sock.send(json.dumps({"path": sys.path, "spec": spec}).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._sock.close()
        self._process.wait(PATIENCE)

    def member(self, folder: str, slot: int = 0) -> Member:
        """Forks a member whose files lie in `folder`, and waits until it has joined."""
        return Member(self, folder, slot)

    def fork(self, order: dict[str, Any], fds: list[int]) -> int:
        """Passes an order on; returns the pid."""
        socket.send_fds(self._sock, [json.dumps({"fork": order}).encode()], fds)
        return int(json.loads(self._sock.recv(4096))["pid"])

    def wait(self, pid: int) -> int:
        """Waits for the end of a member; its exit code, or the signal's number below zero."""
        self._sock.send(json.dumps({"wait": pid}).encode())
        return int(json.loads(self._sock.recv(4096))["code"])


class Member:
    """A member process and both sockets to it."""

    def __init__(self, forge: Forge, folder: str, slot: int) -> None:
        self.folder = folder
        self.slot = slot
        self.nonce = secrets.token_bytes(16)
        self.codec = Codec(f"{folder}/F.db.blobs")
        self.slots_path = f"{folder}/F.db.slots"
        self._reader = SlotReader(open_slots(self.slots_path, create=True))
        self._forge = forge
        self._numbers: dict[Any, int] = {}
        self._epochs = itertools.count((BOOT << 40) + 1 + slot * 1000)
        self._steps = itertools.count(1_000 + slot * 1_000_000)
        self._rows: list[Row] = []
        self._code: int | None = None
        self.link, work = _pair()
        self.control, control = _pair()
        with work, control:
            order = {
                "executor": forge.spec,
                "slot": slot,
                "nonce": self.nonce.hex(),
                "boot_epoch": BOOT,
                "slots_path": self.slots_path,
                "blobs": self.codec.folder,
            }
            self.pid = forge.fork(order, [work.fileno(), control.fileno()])
        self.joined: Joined = self.link.receive()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Makes sure that nothing is left of it."""
        self.kill()
        self.hang_up()

    def number(self, function: Any) -> int:
        """The number of a function, which is introduced at its first use."""
        if function not in self._numbers:
            self._numbers[function] = len(self._numbers) + 1
            self.link.send(define(self._numbers[function], function, kind="step"))
        return self._numbers[function]

    def claim(self, *calls: tuple[Any, ...], attempt: int = 1, steps: list[int] | None = None) -> tuple[int, list[int]]:
        """Hands calls (function, *args) over in one claim; returns its epoch and the steps' ids."""
        steps = steps or [next(self._steps) for _ in calls]
        epoch = next(self._epochs)
        rows = [
            (step, attempt, self.number(function), self.codec.dumps((tuple(args), {}), f"a{step}"))
            for step, (function, *args) in zip(steps, calls, strict=True)
        ]
        self.link.send(Claim(epoch, rows))
        return epoch, steps

    def results(self, count: int) -> list[Row]:
        """The next `count` rows, in the order in which they were sent."""
        while len(self._rows) < count:
            for message in self.link.receive():
                assert isinstance(message, Results), message
                self._rows += [Row(message.epoch, *row) for row in message.rows]
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken

    def nothing_more(self) -> bool:
        """Whether every result was taken and the member has closed its end."""
        with contextlib.suppress(Closed):
            while True:
                self._rows += [Row(message.epoch, *row) for message in self.link.receive() for row in message.rows]
        return not self._rows

    def run(self, function: Any, *args: Any) -> Any:
        """Runs one call and returns what it returns, or raises what it raises."""
        self.claim((function, *args))
        return self.open(self.results(1)[0])

    def open(self, row: Row) -> Any:
        """The value of a row; raises its failure."""
        if row.status == COMPLETED:
            return self.codec.loads(row.payload)
        raise self.codec.restore(row.payload)

    def revoke(self) -> list[tuple[int, int]]:
        """Takes back what is not begun."""
        self.control.send(Revoke())
        return self.gave_back()

    def gave_back(self) -> list[tuple[int, int]]:
        """The next answer on the control socket."""
        (message,) = self.control.receive()
        assert isinstance(message, GaveBack), message
        return message.rows

    def stop(self) -> None:
        """Asks the member to leave."""
        self.control.send(Stop())

    def wait(self) -> int:
        """The exit code of a member that was told to leave or is dying."""
        if self._code is None:
            self._code = self._forge.wait(self.pid)
        return self._code

    def kill(self) -> int:
        """SIGKILL, and what came of it."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def hang_up(self) -> None:
        """What a member sees when the supervisor dies."""
        self.link.close()
        self.control.close()

    def identity(self) -> Identity:
        """Who has signed the slot."""
        return self._reader.identity(self.slot)

    def entries(self) -> list[Entry]:
        """The evidence in the slot."""
        return self._reader.entries(self.slot)

    def stack(self) -> str:
        """The member's last words."""
        return stacks.read(self.slots_path, self.slot)

    def gate(self) -> Gate:
        """A new gate for `bodies.gate`."""
        return Gate(f"{self.folder}/gate-{secrets.token_hex(4)}")


class Gate:
    """Holds a body that runs `bodies.gate(gate.path)`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: int | None = None
        os.mkfifo(path, 0o600)

    def await_body(self) -> None:
        """Waits until the body has begun; it waits at the gate from then on."""
        if self._fd is None:
            self._fd = wait_until(self._reach, "the begin of a body at a gate")

    def open(self) -> None:
        """Lets the body go on; it returns "open"."""
        self.await_body()
        assert self._fd is not None
        os.write(self._fd, b"open")
        self.close()

    def close(self) -> None:
        """Lets go of a body that is dead or waits no longer."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _reach(self) -> int | None:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nobody reads yet
                return None
            raise


def _pair() -> tuple[Link, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    return Link(ours), theirs
