"""The killer: does to the processes of an engine what the plan says, with real signals."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from dq.cli.chaos.crowd import Crowd, Person, lives
from dq.cli.chaos.history import note
from dq.cli.chaos.plan import KINDS, Fault
from dq.cli.chaos.watch import Watch

_DYING = 10.0  # seconds that the kernel may take to end a killed process
_STOPPING = 1.0  # seconds in which a stopped process is stopped
_SEARCH, _SEARCH_FIRST = 1.0, 30.0  # seconds that a victim is looked for; the first one of a kind
_EARLY = 0.2  # part of the supervisors that may die before they have members; clients give up after many such in a row
_GLANCE = 0.01  # seconds between two looks
_LOOK = 0.02  # seconds between two looks at who is at what


class Killer(threading.Thread):
    """Kills and stops processes, one fault after the other.

    Args:
        crowd: Who is there.
        log: The history.
        plan: What to do and when.
        hang: Seconds after which a stopped worker is taken for hung and killed by its supervisor.
        budget: How many times one step, or one run in its host, may be hit; None for any number.
    """

    def __init__(self, crowd: Crowd, log: str, plan: Iterable[Fault], hang: float, budget: int | None) -> None:
        super().__init__(name="killer", daemon=True)
        self._crowd = crowd
        self._log = log
        self._plan = plan
        self._hang = hang
        self._budget = budget
        self._hits: Counter[int] = Counter()
        self._over = threading.Event()
        self._watch = Watch(crowd)
        self.kills: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        self.fault: BaseException | None = None

    def run(self) -> None:
        began = time.monotonic()
        try:
            for fault in self._plan:
                self._watch_until(began + fault.due)
                self._do(fault)
        except _Over:
            pass
        except Exception as error:  # noqa: BLE001 -- shown by whoever joins this thread
            self.fault = error

    def has_met(self, kinds: Iterable[str]) -> bool:
        """Whether there was a fault of each of these kinds."""
        return all(self.kills[kind] for kind in kinds)

    def end(self) -> None:
        """Nothing is killed any more, and nobody is stopped."""
        self._over.set()
        self.join()

    def _watch_until(self, due: float) -> None:
        """Passes the time by looking who is at what."""
        while (left := due - time.monotonic()) > 0:
            if self._over.wait(min(left, _LOOK)):
                raise _Over
            for row in self._watch.look():
                note(self._log, **row)

    def _do(self, fault: Fault) -> None:
        # The first of each kind is awaited: after some faults there is nobody for a while.
        until = time.monotonic() + (_SEARCH if self.kills[fault.kind] else _SEARCH_FIRST)
        while time.monotonic() < until:
            victims = self._choose(fault)
            if victims and self._strike(fault, victims):
                self.kills[fault.kind] += 1
                return
            if self._over.wait(_GLANCE):
                raise _Over

    def _choose(self, fault: Fault) -> list[Person]:
        people = self._crowd.everybody()
        if fault.kind in ("supervisor", "group") and fault.draw > _EARLY and not any(one.slot >= 0 for one in people):
            return []
        if fault.kind == "group":
            return people
        if fault.kind != "stop":
            people = [one for one in people if one.kind == fault.kind]
        return [people[int(fault.draw * len(people))]] if people else []

    def _strike(self, fault: Fault, victims: list[Person]) -> bool:
        """Does it. False where it can't be done."""
        with contextlib.ExitStack() as stack:
            opened = [(person, stack.enter_context(_opened(person))) for person in victims]
            found = [(person, process) for person, process in opened if process]
            try:
                if not found:
                    return False
                if fault.kind != "stop" and self._budget is None:
                    self._kill(fault.kind, found)
                    return True
                return self._strike_stopped(fault, found)
            except ProcessLookupError:
                return False

    def _strike_stopped(self, fault: Fault, victims: list[tuple[Person, int]]) -> bool:
        """Stops the victims, so that what they are at does not change, looks whether they may be hit, and goes on from there."""
        try:
            for _, process in victims:
                signal.pidfd_send_signal(process, signal.SIGSTOP)
            people = [person for person, _ in victims]
            fatal = fault.kind != "stop" or fault.span > 1
            if not all(_stopped(person.pid) for person in people) or (fatal and not self._afford(people)):
                return False
            if fault.kind == "stop":
                self._pause(fault, people[0])
            else:
                self._kill(fault.kind, victims)
            return True
        finally:
            for _, process in victims:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGCONT)

    def _afford(self, people: list[Person]) -> bool:
        """Whether what they are at may be hit once more. A user's step that dies too often would be quarantined."""
        at = [id for person in people for id, _ in self._crowd.busy(person)]
        if self._budget is not None and any(self._hits[id] >= self._budget for id in at):
            return False
        self._hits.update(at)
        return True

    def _pause(self, fault: Fault, person: Person) -> None:
        began = time.monotonic()
        with contextlib.suppress(_Over):
            self._watch_until(began + fault.span * self._hang)
        note(self._log, "stop", kind=person.kind, victim=person.pid, seconds=round(time.monotonic() - began, 3))

    def _kill(self, kind: str, victims: list[tuple[Person, int]]) -> None:
        """Kills them all, and then waits for each to end: nobody's death is noticed by one who is to die too."""
        for _, process in victims:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
        for person, process in victims:
            if not select.select([process], [], [], _DYING)[0]:
                raise RuntimeError(f"process {person.pid} outlives its SIGKILL")
        note(self._log, "kill", kind=kind, victims=[person.pid for person, _ in victims])


class _Over(Exception):
    """The time is up."""


@contextlib.contextmanager
def _opened(person: Person) -> Iterator[int]:
    """A descriptor of the process, 0 where it is gone or another one has its pid."""
    try:
        process = os.pidfd_open(person.pid)
    except ProcessLookupError:
        yield 0
        return
    try:
        yield process if lives(person) else 0
    finally:
        os.close(process)


def _stopped(pid: int) -> bool:
    """Waits until a process that was told to stop has stopped; False where it has died."""
    until = time.monotonic() + _STOPPING
    while time.monotonic() < until:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]
        except OSError:
            return False
        if state in (b"T", b"t"):
            return True
        if state in (b"Z", b"X"):
            return False
        time.sleep(0.0005)
    return False
