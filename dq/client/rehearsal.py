"""Replays unfinished runs against the code on disk, in processes of their own: what `dq check` does.

    this process: reads the file ──Hello, Define, Assign, History──► stage: imports the code, plays the run
                                 ◄──────────a line of JSON──────────

There is one stage for each place that code comes from. One that dies or hangs in a run is replaced for the next one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dq.executor import signing
from dq.executor.frames import VERSION, Assign, Hello, History
from dq.executor.link import Closed, Link
from dq.flow.stage import Told

if TYPE_CHECKING:
    from dq.client.recording import Recording, Shelf
    from dq.executor.frames import Context

GRACE = 1.0  # seconds that a stage has to say that its time is up, until it is killed
START_MAX = 120.0  # seconds that the import of user code may take
_HASH_SEED = "0"  # as in hosts: sets and dicts of strings keep their order between a run and its replay


class Stage:
    """The other process. `broken` says why its code can't be imported, "" where it can."""

    def __init__(self, context: Context, shelf: Shelf, db: str, seconds: float) -> None:
        self._shelf = shelf
        self._seconds = seconds
        self._known: set[int] = set()
        self._late = False
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[2])
        env = dict(os.environ, PYTHONHASHSEED=_HASH_SEED)
        env["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [env.get("PYTHONPATH")])])
        python = context.python if os.path.isfile(context.python) else sys.executable
        with theirs:
            command = [python, "-P", "-m", "dq.flow.stage", str(theirs.fileno()), str(seconds), f"{db}.blobs"]
            # What user code prints must not mix with what the command says.
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2, env=env
            )
        self._sock = ours
        self._link = Link(ours)
        self._lines = ours.makefile("rb")
        self.broken = self._begin(context)

    def _begin(self, context: Context) -> str:
        self._sock.settimeout(START_MAX)
        signer = signing.own()
        key = signer.reveal() if signer is not None else b""
        with contextlib.suppress(Closed):
            self._link.send(Hello(VERSION, os.getpid(), self._shelf.salt.encode(), context, key=key))
        told = self._hear()
        if told is None:
            return f"its code can't be imported: {self._ending()}"
        return told.reason

    def play(self, recording: Recording) -> Told:
        """What becomes of a run. The stage is of no more use where `alive` is false after it."""
        told = recording.told
        self._sock.settimeout(self._seconds + GRACE)
        with contextlib.suppress(Closed, TimeoutError):
            self._send(told, recording)
        answer = self._hear()
        if answer is not None:
            return answer
        return Told(told.run, "lost", f"the process that replayed it {self._ending()}", breaks=True)

    def _send(self, told: Assign, recording: Recording) -> None:
        self._introduce(told.function)
        self._link.send(told)
        for rows in self._shelf.steps(recording):
            for number in {row[1] for row in rows}:
                self._introduce(number)
            self._link.send(History(told.run, rows, False))
        self._link.send(History(told.run, [], True))

    def _introduce(self, number: int) -> None:
        if number not in self._known:
            self._known.add(number)
            self._link.send(self._shelf.defines[number])

    def _hear(self) -> Told | None:
        """The next line; None where the stage is dead, or says nothing in time and is killed for that."""
        try:
            return msgspec.json.decode(self._lines.readline(), type=Told)
        except TimeoutError:
            self._late = True
        except (OSError, msgspec.MsgspecError):
            pass
        return None

    def _ending(self) -> str:
        """How the other process has ended, as the end of a sentence; one that has not is killed."""
        try:
            code = self._process.wait(0 if self._late else GRACE)
        except subprocess.TimeoutExpired:
            self.close()
            return "did not come to rest in time, and could not be interrupted"
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._lines.close()
        self._sock.close()


def rehearse(shelf: Shelf, runs: list[Recording], db: str, seconds: float) -> Iterator[tuple[Recording, Told]]:
    """Plays runs, those of one place after the other, and says of each what would become of it.

    Args:
        shelf: The file that they are from.
        runs: Which ones.
        db: The path of that file.
        seconds: How long one run may take.
    """
    by_context: dict[Context, list[Recording]] = {}
    for run in runs:
        by_context.setdefault(run.context, []).append(run)
    for context, its in by_context.items():
        stage: Stage | None = None
        try:
            for run in its:
                if stage is None or (not stage.alive and not stage.broken):
                    if stage is not None:
                        stage.close()
                    stage = Stage(context, shelf, db, seconds)
                yield run, Told(run.told.run, "broken", stage.broken, breaks=True) if stage.broken else stage.play(run)
        finally:
            if stage is not None:
                stage.close()
