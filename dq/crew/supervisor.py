"""The supervisor: the one process that owns the file, in one loop.

    clients ──submit, start──► ┌───────────── turn ─────────────┐ ──Claim──► workers
            ◄──results──────── │ hear · staff · assign · dispatch │ ◄─Results─
    hosts ──steps, finish────► │ commit ─► after_commit: claims   │
          ◄─assign, deliver─── │ sync ───► after_sync: the rest   │ ──Fork──► templates
                               └──────────────────────────────────┘ ◄─pidfd, EOF─ the kernel

One turn hears everybody, decides, writes once, and sends. Nothing in it waits: not for a client, not for a worker, and
for the disk only while that is quicker than going round.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

from dq.crew.attempts import Attempts
from dq.crew.blame import blame, say
from dq.crew.cancels import Cancels
from dq.crew.clients import Clients
from dq.crew.committer import Committer
from dq.crew.dedups import Dedups
from dq.crew.delays import Delays
from dq.crew.door import Door
from dq.crew.effects import Effects
from dq.crew.evidence import Death, MemoryKills, last_stack
from dq.crew.hosts import Hosts
from dq.crew.kernel import Kernel
from dq.crew.launches import Launches
from dq.crew.leaps import Leaps
from dq.crew.ledger import Ledger
from dq.crew.limits import Limits
from dq.crew.members import HOST, Member
from dq.crew.options import Options
from dq.crew.poller import Poller
from dq.crew.publishing import Publishing
from dq.crew.queues import Queues
from dq.crew.reaper import Watch, autopsy, reap, reap_strangers, running_run
from dq.crew.results import Results
from dq.crew.scheduler import Scheduler
from dq.crew.schedules import Schedules
from dq.crew.staff import Staff
from dq.crew.terms import Terms
from dq.crew.timers import Timers
from dq.crew.waits import Waits
from dq.executor import frames
from dq.executor.frames import BadFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dq.executor.slots import SlotReader
    from dq.model.clock import Clock
    from dq.store.store import Store

FIRST_CLIENT = 30.0  # seconds that an engine's own supervisor waits for its engine
STOP_MAX = 2.0  # seconds that members have to leave when they are told to
PREGROW_AFTER = 0.2  # seconds; a short-lived supervisor need not pay for it
CLOCK_LOOK = 10.0  # seconds between two looks at the system's clock
SPIN = 0.0003  # seconds of looking again before the loop sleeps, while work is dense


class Supervisor:
    """Owns the store, and everything that happens to it."""

    def __init__(
        self, options: Options, store: Store, slots: SlotReader, clock: Clock, boot_epoch: int,
        launches: Launches, kernel: Kernel,
    ) -> None:  # fmt: skip
        self.options = options
        self.store = store
        self.slots = slots
        self.clock = clock
        self.kernel = kernel
        self.pid = os.getpid()
        self.poller = Poller()
        self.timers = Timers()  # seconds of the monotonic clock
        self.alarms = Timers()  # microseconds UTC: what is recorded
        self.committer = Committer(store, self.notice, clock)
        self.ledger = Ledger(store, self.committer, clock, boot_epoch)
        self.scheduler = Scheduler(self.ledger, store, self.committer, clock)
        self.staff = Staff(
            launches, kernel, clock, self.ledger, self.scheduler, self.poller, options.start_method, self.notice
        )
        self.hosts = Hosts(self)
        self.results = Results(self)
        self.waits = Waits(self)
        self.delays = Delays(self)
        self.terms = Terms(self)
        self.queues = Queues(self)
        self.dedups = Dedups(self)
        self.attempts = Attempts(self)
        self.limits = Limits(self)
        self.cancels = Cancels(self)
        self.schedules = Schedules(self)
        self.leaps = Leaps(clock, self.queues, self.notice)
        self.publishing = Publishing(self)
        self.effects = Effects(self)
        self.clients = Clients(self, self.hosts, self.results)
        self._introduce()
        self.watch = Watch(slots, options.hang, clock, kernel)
        self._memory_kills = MemoryKills()
        self.stopping = ""
        self.abandoned = 0
        self._signals = 0
        self._handing_back = False
        self._stop_at = 0.0
        self._wake: socket.socket | None = None
        self._dense = False

    def _introduce(self) -> None:
        """Tells the parts about each other that could not be told when they were made."""
        self.scheduler.terms = self.terms
        self.scheduler.queues = self.ledger.queues = self.queues
        self.scheduler.watch = self.limits.watch
        self.hosts.results = self.results
        self.committer.overlaps = lambda: self.scheduler.claimed > 0
        self.scheduler.open_nursery = self.staff.nursery
        self.staff.hear = self._on_member
        self.staff.hear_control = self._on_control
        self.staff.lose = lambda member: self._lost(member, Death(-1, 0))
        self.staff.refuse = self.clients.refuse

    def serve(self, listener: socket.socket) -> int:
        """Works until it is told to stop. Returns the exit code: 0, or 4 when running steps had to be given up."""
        door = Door(self, listener)
        self.poller.register(self.committer.wake_fd, lambda _mask: self.committer.synced())
        now = self.clock.monotonic()
        self.timers.at(now + PREGROW_AFTER, self._pregrow)
        self.timers.at(now + self.watch.tick, self._tick)
        if self.options.ephemeral:
            self.timers.at(now + FIRST_CLIENT, door.nobody_came)
        while not self._over():
            self.turn()
        return self._close()

    def turn(self) -> None:
        """Hears everybody, decides, writes once, sends."""
        self._wait()
        now = self.clock.monotonic()
        self.timers.run(now)
        if not self.options.workers:
            self.committer.commit()
            return
        self.alarms.run(self.clock.now())
        self.staff.homeless = self.ledger.homeless.contexts
        if self.staff.homeless and not self.stopping:
            self.hosts.assign()
        self.staff.keep(now)
        self.scheduler.revoke_stuck()
        self.scheduler.dispatch()
        self.hosts.deliver()
        self.committer.commit()

    def _wait(self) -> None:
        """Hears what has come. While work is dense it looks again for a moment before it sleeps: waking costs more."""
        timeout = self._timeout()
        if self._dense and (timeout is None or timeout > SPIN):
            end = time.perf_counter() + SPIN
            while not self.poller.poll(0):
                if time.perf_counter() > end:
                    self._dense = False
                    self.poller.poll(self._timeout())
                    return
                os.sched_yield()
            return
        began = time.perf_counter()
        if self.poller.poll(timeout):
            self._dense = time.perf_counter() - began < SPIN

    def _timeout(self) -> float | None:
        now = self.clock.monotonic()
        if self.hosts.more:
            return 0.0
        waits = [
            self.committer.timeout(), self.scheduler.timeout(), self.timers.timeout(now), self.staff.next_try(now),
            self._until_alarm(),
        ]  # fmt: skip
        return min([wait for wait in waits if wait is not None], default=None)

    def _until_alarm(self) -> float | None:
        """Seconds until the next alarm, but no more than some, since the system's clock may be set meanwhile."""
        if not self.alarms or not self.options.workers:
            return None
        left = self.alarms.timeout(self.clock.now())
        return None if left is None else min(left / 1_000_000, CLOCK_LOOK)

    def heed_signals(self) -> None:
        """From now on a signal is a wish, and does not end the process. To be called before anybody is told of it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        self._wake = theirs
        self.poller.register(ours.fileno(), lambda _mask: self._on_signal(ours))
        self.committer.wait = lambda seconds: not select.select([ours], [], [], seconds)[0]

    def _on_signal(self, pipe: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in pipe.recv(64):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._signals += 1
                    self.stop(signal.Signals(number).name, now=self._signals > 1)

    def _tick(self) -> None:
        """Looks for the hung, for members that do not start, and for the dead that nobody else waits for."""
        now = self.clock.monotonic()
        for member, why in self.watch.hung([m for m in self.staff.members if m.ready and not m.why]):
            self.limits.end_hung(member, why)
        for member in self.staff.overdue(now):
            member.why = "it did not start in time"
            self.staff.kill(member, member.why)
            if not member.pid:
                self.staff.lose(member)
        self.staff.look_again()
        self.leaps.look()
        self.committer.tidy()
        reap_strangers({m.pid for m in self.staff.members} | {n.pid for n in self.staff.nurseries})
        self.timers.at(now + self.watch.tick, self._tick)

    def _pregrow(self) -> None:
        """Overwriting a log that is there costs half of what lengthening it does."""
        self.store.pregrow()

    def notice(self, text: str) -> None:
        """Tells people: on the standard error stream, and to every client."""
        say(text)
        for client in self.clients.all.values():
            client.peer.send(frames.Notice(text))

    def _on_member(self, member: Member, mask: int) -> None:
        peer = member.peer
        if mask & select.EPOLLOUT:
            peer.flush()
        self._hear_member(member, peer.read)
        if peer.closed and not member.died:
            member.died = True
            self.poller.unregister(peer.fd)
            if not member.pid:
                self.staff.lose(member)

    def _hear_member(self, member: Member, read: Callable[[], Sequence[frames.Any]]) -> None:
        try:
            for message in read():
                if type(message) is frames.Results:
                    self.results.take(member, message)
                else:
                    self._heard(member, message)
        except Exception as error:  # noqa: BLE001 -- what anybody sends is their own end, and nobody else's
            self._expel(member, error)

    def _expel(self, member: Member, error: Exception) -> None:
        self.staff.kill(member, f"it {blame(f'the {member.kind} with pid {member.pid}', error)}")

    def _heard(self, member: Member, message: frames.Any) -> None:
        match message:
            case frames.Joined(pid, started, nonce) if nonce == member.nonce and not member.pid:
                if member.adopt(pid, started, self.kernel):
                    self._joined(member)
            case frames.Unfit(text):
                member.why = text
            case frames.Effects() if member.kind != HOST:
                self.effects.take(member, message)
            case frames.Progress() if member.kind != HOST:
                self.attempts.progress(member, message)
            case _:
                if member.kind != HOST or not self.hosts.hear(member, message):
                    raise BadFrame(f"{type(message).__name__} from a {member.kind}")

    def _joined(self, member: Member) -> None:
        member.ready = True
        self.poller.register(member.pidfd, lambda _mask: self._on_death(member))
        if member.kind == HOST:
            self.hosts.functions[member] = {}
        if self.stopping:
            self.staff.dismiss(member)  # it was on its way when the others were sent home

    def _on_control(self, member: Member, mask: int) -> None:
        if mask & select.EPOLLOUT:
            member.control.flush()
        try:
            for message in member.control.read():
                if isinstance(message, frames.GaveBack):
                    self.scheduler.gave_back(member, message.rows)
                    self.cancels.given_back(member)
                elif isinstance(message, frames.Notice):
                    self.notice(message.text[:2000])
        except Exception as error:  # noqa: BLE001 -- as above
            self._expel(member, error)
        if member.control.closed:
            self.poller.unregister(member.control.fd)

    def _on_death(self, member: Member) -> None:
        """The kernel says that a member is dead: take what it had sent, then its status, then free what it held."""
        self._hear_member(member, member.peer.drain)
        death = reap(member, self.kernel)
        if death is not None:
            self.poller.unregister(member.pidfd)
            os.close(member.pidfd)
            member.nursery.forget(member.pid)
            stack = last_stack(f"{self.options.db}.slots", member.slot)
            self._lost(member, death._replace(stack=stack, out_of_memory=self._memory_kills.since_last()))

    def _lost(self, member: Member, death: Death) -> None:
        if member not in self.staff.members:
            return
        verdicts = autopsy(member, self.slots)
        running = running_run(member, self.slots)
        if self._handing_back:
            self.abandoned += sum(bool(verdict.outcome) for verdict in verdicts)
        if not (member.why or member.stopping or not member.ready) and not verdicts and member.kind != HOST:
            member.why = "idle"
        self.results.bereave(member, verdicts, death)
        self.hosts.bereave(member, running, death)
        self.staff.bury(member, self.clock.monotonic())
        slot = member.slot
        self.committer.dirty = True
        self.committer.then.append(lambda: self._free(slot))

    def _free(self, slot: int) -> None:
        self.slots.clear(slot)
        self.staff.free_slot(slot)

    def stop(self, why: str, *, now: bool) -> None:
        """Drains: what is begun may finish, within the grace. A second call, or `now`, hands it back at once."""
        first = not self.stopping
        self.stopping = self.stopping or why
        self.scheduler.draining = self.staff.closing = True
        limit = 0.0 if now else self.options.grace
        self._stop_at = min(self._stop_at or float("inf"), self.clock.monotonic() + limit)
        self.timers.at(self._stop_at, lambda: None)
        if first:
            running = sum(member.outstanding > 0 for member in self.staff.members)
            if running and limit and self._signals:
                self.notice(
                    f"stopping ({why}): {running} workers may finish their steps, within {limit:g} s. "
                    "A second signal hands the steps back at once; they run again at the next start."
                )
            for member in self.staff.members:
                if member.ready and member.outstanding:
                    member.control.send(frames.Revoke())
                elif member.kind == HOST and member.ready:
                    continue
                else:
                    self._send_home(member)

    def _send_home(self, member: Member) -> None:
        if member.ready:
            self.staff.dismiss(member)

    def _over(self) -> bool:
        """Whether the loop ends: told to stop, and nothing is running, or the grace is over."""
        if not self.stopping:
            return False
        return self.clock.monotonic() >= self._stop_at or not any(member.outstanding for member in self.staff.members)

    def _close(self) -> int:
        """Ends all members, records what they leave, and closes the file as a clean stop."""
        self._handing_back = True
        for member in list(self.staff.members):
            if not member.outstanding:
                self.staff.dismiss(member)
        self._await_members(self.clock.monotonic() + STOP_MAX, lambda m: not m.outstanding)
        for member in list(self.staff.members):
            self.staff.kill(member, "handed back")
        self._await_members(self.clock.monotonic() + STOP_MAX, lambda m: bool(m.pid))
        self.hosts.deliveries.clear()
        self.committer.settle()
        for nursery in self.staff.nurseries:
            if nursery.peer is not None:
                nursery.peer.close()
        deadline = self.clock.monotonic() + STOP_MAX
        for peer in [*self.clients.leaving, *(client.peer for client in self.clients.all.values())]:
            peer.finish(deadline)
        self.store.close(clean=True)
        return 4 if self.abandoned else 0

    def _await_members(self, deadline: float, which: Callable[[Member], bool]) -> None:
        """Runs the loop's hearing half until the chosen members are gone, or the time is up."""
        while any(which(member) for member in self.staff.members):
            left = deadline - self.clock.monotonic()
            if left <= 0:
                break
            self.poller.poll(left)
            self.committer.commit()
