"""Starts template processes, the first one before it is known for whom.

A template takes a tenth of a second to be there. So a supervisor starts one before it has even read its own code, while it
takes the file over; the template waits for its context, and holds no lock and no user code until it has one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import NamedTuple

_HASH_SEED = "0"  # sets and dicts of strings keep their order between a run and its replay


class Launch(NamedTuple):
    """A process, and the supervisor's end of the socket to it."""

    sock: socket.socket
    process: subprocess.Popen[bytes]


class Launches:
    """Starts the templates of one database's supervisor.

    Args:
        db: The database file's path.
    """

    def __init__(self, db: str) -> None:
        self._db = os.path.abspath(db)
        self._spare: Launch | None = None

    def prepare(self) -> None:
        """Starts a process for the first template that is asked for. It ends with this process, like every other."""
        self._spare = self._start("serve", sys.executable)

    def launch(self, mode: str, python: str) -> Launch:
        """A new process of `python -m dq.crew.template`. Raises OSError."""
        spare = self._spare
        if spare is not None and (mode, python) == ("serve", sys.executable):
            self._spare = None
            if spare.process.poll() is None:
                return spare
            spare.sock.close()
        return self._start(mode, python)

    def _start(self, mode: str, python: str) -> Launch:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        env = dict(os.environ, PYTHONHASHSEED=_HASH_SEED, PYTHONPATH=path)
        with theirs:
            fd = theirs.fileno()
            command = [python, "-P", "-m", "dq.crew.template", mode, str(fd), self._db]
            try:
                process = subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL, env=env)
            except OSError:
                ours.close()
                raise
        return Launch(ours, process)
