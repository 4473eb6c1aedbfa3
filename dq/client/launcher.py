"""Finds the supervisor of a database file, or starts one as a child of this process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dq import errors
from dq.client.sock import dial

if TYPE_CHECKING:
    from dq.executor.signing import Signer

PATIENCE = 15.0  # seconds for another supervisor, that starts or drains, to listen or to be gone
_POLL = 0.02  # seconds between two attempts to connect
_TWICE = 0.1  # seconds between two SIGTERMs: two that are pending at once would count as one

# Supervisors that serve on for other clients after this process has let go of them; kept so that they can be reaped.
_left: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Options:
    """How a supervisor is started; the words of `python -m dq.crew`.

    Attributes:
        workers: How many worker processes; None for one a core.
        executors: name -> spec, such as {"io": "thread:64"}.
        start_method: "fork" (from a template) or "spawn".
        hang: Seconds without a beat after which a worker counts as hung.
        grace: Seconds that running steps have to finish when the supervisor stops.
        ephemeral: Whether it stops when its last client leaves.
        recycle_steps: After so many steps a worker process is replaced; 0: never.
        recycle_rss: The same for bytes that it has in memory.
        keep: Seconds that what has ended stays on record; 0: for ever.
    """

    workers: int | None = None
    executors: Mapping[str, str] = field(default_factory=dict)
    start_method: str = "fork"
    hang: float = 10.0
    grace: float = 5.0
    ephemeral: bool = True
    recycle_steps: int = 0
    recycle_rss: int = 0
    keep: float = 0.0

    def words(self) -> list[str]:
        words = ["--start-method", self.start_method, "--hang", repr(self.hang), "--grace", repr(self.grace)]
        if self.workers is not None:
            words += ["--workers", str(self.workers)]
        for name, spec in self.executors.items():
            words += ["--executor", f"{name}={spec}"]
        if self.recycle_steps:
            words += ["--recycle-after", str(self.recycle_steps)]
        if self.recycle_rss:
            words += ["--recycle-rss", str(self.recycle_rss)]
        if self.keep:
            words += ["--keep", repr(self.keep)]
        if self.ephemeral:
            words.append("--ephemeral")
        return words


class Launcher:
    """The way to the supervisor of one file. Used by one thread at a time.

    Args:
        db: The database file's path.
        options: How to start a supervisor; None where one must only be found.

    Attributes:
        started: The pid of the supervisor that was started last, whether it still runs or not.
        signer: The signing key that a supervisor is given, through a pipe; None for none.
    """

    def __init__(self, db: str, options: Options | None) -> None:
        self.db = os.path.abspath(db)
        self.started = 0
        self._options = options
        self.signer: Signer | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def works(self) -> bool:
        """Whether a supervisor that is started here would have workers."""
        return self._options is not None and self._options.workers != 0

    @property
    def child(self) -> int:
        """The pid of the supervisor that this launcher has started, 0 if there is none or it has ended."""
        return self._child.pid if self._child is not None and self._child.poll() is None else 0

    def interrupt(self) -> None:
        """Makes the child hand running steps back at once, and waits until it is gone."""
        child = self._child
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(_TWICE)
        except subprocess.TimeoutExpired:
            child.terminate()
        child.wait()

    def connect(self, hold_off: float = 0.0, pause: Callable[[float], None] = time.sleep) -> socket.socket:
        """A socket to the supervisor, which is started if there is none.

        Args:
            hold_off: Seconds to wait for somebody else to start it first.
            pause: Waits for a number of seconds; may raise to give up.

        Raises:
            StoreError: The supervisor can't serve the file; the subclass and the message say why.
            SupervisorLost: It ended before it was ready.
        """
        begun = time.monotonic()
        patience = PATIENCE + (self._options.grace if self._options else 0.0)
        while True:
            sock = dial(self.db)
            if sock is not None:
                return sock
            waited = time.monotonic() - begun
            if waited >= hold_off:
                try:
                    self.start()
                    continue
                except errors.DatabaseInUse:
                    if waited >= patience:
                        raise
            pause(_POLL)

    def start(self) -> None:
        """Starts a supervisor and returns when it listens. Raises like `connect`, and DatabaseInUse."""
        if self._options is None:
            raise errors.SupervisorLost(f"no supervisor works on {self.db}; start one with `dq up --db {self.db}`")
        self.release()
        child, pipe = _spawn(self.db, self._options, self.signer)
        self._child = child
        self.started = child.pid
        try:
            with open(pipe, "rb") as ready:
                line = ready.readline()
        except BaseException:
            child.terminate()
            raise
        error = _read(line, self.db)
        if error is not None:
            code = child.wait()
            self._child = None
            if isinstance(error, errors.SupervisorLost):
                raise errors.SupervisorLost(f"{error} (exit code {code}; its output says more)")
            raise error

    def wait(self, pid: int) -> None:
        """Waits until a supervisor has stopped, if it is a child of this process.

        Ctrl-C meanwhile makes it hand its running steps back at once.
        """
        self._child = next((child for child in [self._child, *_left] if child is not None and child.pid == pid), None)
        if self._child is None:
            return
        try:
            self._child.wait()
        except KeyboardInterrupt:
            self.interrupt()
            raise
        finally:
            self.release()

    def release(self) -> None:
        """Lets go of the child, whether it runs on or not."""
        _left[:] = [child for child in _left if child.poll() is None]
        if self._child is not None and self._child.poll() is None:
            _left.append(self._child)
        self._child = None


def _spawn(db: str, options: Options, signer: Signer | None) -> tuple[subprocess.Popen[bytes], int]:
    """The new process and the fd on which it tells that it is ready.

    -P keeps a module of the working folder from taking the place of one that the supervisor needs.
    """
    reader, writer = os.pipe()
    command = [sys.executable, "-P", "-m", "dq.crew", "--db", db, *options.words(), "--ready-fd", str(writer)]
    fds = [writer]
    if signer is not None:
        fds.append(_hand_over(signer))
        command += ["--key-fd", str(fds[1])]
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=fds, start_new_session=True)
    except BaseException:
        os.close(reader)
        raise
    finally:
        for fd in fds:
            os.close(fd)
    return child, reader


def _hand_over(signer: Signer) -> int:
    """The end of a pipe that holds the key: what stands in arguments or in the environment, others can read."""
    reader, writer = os.pipe()
    with open(writer, "wb") as pipe:
        pipe.write(signer.reveal())
    return reader


def _read(line: bytes, db: str) -> errors.DqError | None:
    """What a new supervisor tells: None if it is ready."""
    try:
        told = json.loads(line)
        name, text, pid = told.get("error"), str(told.get("text", "")), int(told.get("pid") or 0)
    except (ValueError, AttributeError, TypeError):
        return errors.SupervisorLost(f"the supervisor of {db} ended before it was ready")
    if name is None:
        return None
    return revive(name, text, pid)


def revive(name: str, text: str, pid: int = 0) -> errors.DqError:
    """The error of dq.errors that another process names."""
    kind = getattr(errors, name, None)
    if kind is errors.DatabaseInUse:
        return errors.DatabaseInUse(text, pid)
    if kind is errors.StepError or not (isinstance(kind, type) and issubclass(kind, errors.DqError)):
        return errors.DqError(f"{name}: {text}")
    return kind(text)
