"""The killer: follows the run's progress and kills what the plan says, with a real SIGKILL."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from dq.cli.demo.bodylog import Tail, killed
from dq.cli.demo.plan import Strike
from dq.errors import DqError

_GLANCE = 0.003  # seconds between two looks at the log; a body takes ten times as long
_DYING = 10.0  # seconds that the kernel may take to end a killed process


class Kill(NamedTuple):
    """A kill that happened. `in_body` is true where it cut off a body."""

    kind: str
    pid: int
    in_body: bool


class Chaos(threading.Thread):
    """Kills processes of a running engine, one after another.

    Args:
        census: Tells (kind, pid) of all that are at work; may raise while the supervisor is away.
        log: The log that bodies write.
        plan: What to kill and when.
        steps: How many steps the run has, for the plan's fractions.
        seed: Draws the victim among several.
        on_kill: Called in this thread for each kill.
    """

    def __init__(
        self,
        census: Callable[[], Iterable[tuple[str, int]]],
        log: str,
        plan: Sequence[Strike],
        *,
        steps: int,
        seed: int,
        on_kill: Callable[[Kill], None],
    ) -> None:
        super().__init__(name="chaos", daemon=True)
        self._census = census
        self._log = log
        self._tail = Tail(log)
        self._plan = plan
        self._steps = steps
        self._rng = random.Random(seed)
        self._on_kill = on_kill
        self._over = threading.Event()
        self.kills: list[Kill] = []
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            for strike in self._plan:
                self._await(strike.due * self._steps)
                self._strike(strike.kind, aimed=strike.aimed or self._behind())
            while self._behind():
                self._strike("worker", aimed=True)
        except _Over:
            pass
        except Exception as error:  # noqa: BLE001 -- the run goes on, and ends in a fault
            self.fault = error  # shown by whoever joins this thread

    def end(self) -> None:
        """The run is over: nothing is killed any more."""
        self._over.set()
        self.join()

    def _await(self, done: float) -> None:
        while len(self._tail.read().done) < done:
            self._pause()

    def _pause(self) -> None:
        if self._over.wait(_GLANCE):
            raise _Over

    def _behind(self) -> bool:
        """Whether fewer than half of the workers killed so far were killed in a body, since some aimed kill missed."""
        workers = [kill for kill in self.kills if kill.kind == "worker"]
        return 2 * sum(kill.in_body for kill in workers) < len(workers)

    def _strike(self, kind: str, *, aimed: bool) -> None:
        aimed = aimed and kind == "worker"
        pid = 0
        while not pid:
            with contextlib.suppress(DqError, OSError):  # the supervisor is away, or the victim is gone already
                victim = self._choose(kind, aimed=aimed)
                pid = victim if victim and self._kill(kind, victim, aimed=aimed) else 0
            if not pid:
                self._pause()
        killed(self._log, kind, pid)
        kill = Kill(kind, pid, kind == "worker" and pid in self._tail.read().working)
        self.kills.append(kill)
        self._on_kill(kill)

    def _choose(self, kind: str, *, aimed: bool) -> int:
        """The pid of one to kill, or 0 where there is none right now."""
        pids = sorted(pid for each, pid in self._census() if each == kind)
        if aimed:
            working = self._tail.read().working
            pids = [pid for pid in pids if pid in working]
        return self._rng.choice(pids) if pids else 0

    def _kill(self, kind: str, pid: int, *, aimed: bool) -> bool:
        """Kills a process and waits until it is dead. False where it was no longer worth it."""
        with _opened(pid) as process:
            # A pid that is at work now, after the descriptor was opened, is the process behind the descriptor.
            if (kind, pid) not in set(self._census()):
                return False
            if aimed and pid not in self._tail.read().working:
                return False
            signal.pidfd_send_signal(process, signal.SIGKILL)
            if not select.select([process], [], [], _DYING)[0]:
                raise RuntimeError(f"process {pid} outlives its SIGKILL")
            return True


class _Over(Exception):
    """The run has ended before the plan."""


@contextlib.contextmanager
def _opened(pid: int) -> Iterator[int]:
    process = os.pidfd_open(pid)
    try:
        yield process
    finally:
        os.close(process)
