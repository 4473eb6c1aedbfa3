"""Keeps templates, workers and hosts at the number that the work needs."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from dq.crew.members import HOST, WORKER, Lane, Member
from dq.crew.nursery import BACKOFF, BROKEN_WAIT, Nursery, nonce
from dq.executor import frames, script
from dq.executor.frames import BadFrame, Context
from dq.executor.slots import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dq.crew.kernel import Kernel
    from dq.crew.launches import Launches
    from dq.crew.ledger import Ledger
    from dq.crew.poller import Poller
    from dq.crew.scheduler import Scheduler
    from dq.model.clock import Clock

START_MAX = 20.0  # seconds that a new member may take until it is ready
SPAWN_MAX = 120.0  # the same where it imports everything itself
TURN = 1.0  # seconds that a member may stay while another lane has none
STARTING_MAX = 32  # members of a lane that are on their way: their orders must fit into the template's socket
GIVE_UP = 5  # members of a lane that died before they joined, in a row, until people are told


class Staff:
    """Hires and dismisses."""

    def __init__(
        self, launches: Launches, kernel: Kernel, clock: Clock, ledger: Ledger, scheduler: Scheduler, poller: Poller, start_method: str,
        notice: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._launches = launches
        self._kernel = kernel
        self._clock = clock
        self._ledger = ledger
        self._scheduler = scheduler
        self._poller = poller
        self._start_method = start_method
        self._notice = notice
        self.hear: Callable[[Member, int], None]
        self.hear_control: Callable[[Member, int], None]
        self.lose: Callable[[Member], None]  # a member that will never come
        self.refuse: Callable[[Nursery], bool]  # tells clients that their script lacks its guard
        self.members: set[Member] = set()
        self.hosts: dict[int, Member] = {}  # by context
        self.nurseries: list[Nursery] = []
        self.host_failures: dict[int, tuple[int, float]] = {}  # context: how often in a row, retry at
        self._free = list(range(SLOTS - 1, -1, -1))
        self.closing = False
        self.retiring: set[Member] = set()
        self.homeless: set[int] = set()  # contexts with runs that nobody has

    def nursery(self, context_id: int) -> Nursery:
        """The current template of a context, started if it is not there."""
        current = self._scheduler.nurseries.get(context_id)
        if current is None:
            context = self._ledger.contexts[context_id]
            source = script.source_hash(context.script)
            current = self._open(context_id, Context(context.python, context.script, context.cwd, context.path, source))
        return current

    def renew(self, context_id: int, context: Context) -> None:
        """A client has come with a script's text as it is now. Another text than before gets another template."""
        current = self._scheduler.nurseries.get(context_id)
        if current is not None and current.context.source == context.source:
            if current.trouble:
                current.try_again(tell=True)
            self._prepare(current, self._clock.monotonic())
            return
        fresh = self._open(context_id, context)
        for lane in self._scheduler.lanes.values():
            if lane.nursery is current:
                lane.nursery = fresh
        if context_id in self.hosts:
            self.retiring.add(self.hosts.pop(context_id))  # its runs go on with the code that they began with
        self._prepare(fresh, self._clock.monotonic())

    def _open(self, context_id: int, context: Context) -> Nursery:
        nursery = Nursery(context_id, context, self._launches, self._kernel, self._start_method, self._poller)
        self.nurseries.append(nursery)
        self._scheduler.nurseries[context_id] = nursery
        return nursery

    def _prepare(self, nursery: Nursery, now: float) -> bool:
        """Whether members can be had from a template; starts it when they can't and its back-off is over."""
        if nursery.ready:
            nursery.since = now
            return nursery.preload(self._ledger.modules(nursery.context_id))
        if nursery.peer is None and now >= nursery.retry_at and not self.closing:
            self._start(nursery, now)
        return False

    def _start(self, nursery: Nursery, now: float) -> None:
        nursery.since = now
        try:
            peer = nursery.start()
        except OSError as error:
            before = nursery.trouble
            nursery.trouble = str(error)
            nursery.buried(now)
            if nursery.trouble != before:
                self._notice(
                    f"dq can't start {nursery.context.python}, which runs {nursery.context.script or 'the code'}: {error}. "
                    f"Its steps wait. dq tries again when a client connects, and every {BROKEN_WAIT:.0f} s."
                )
            return
        self._poller.handle(peer.fd, lambda mask: self._on_template(nursery, mask))
        self._poller.register(nursery.pidfd, lambda _mask: self._template_died(nursery))

    def _on_template(self, nursery: Nursery, mask: int) -> None:
        peer = nursery.peer
        if peer is None:
            return
        if mask & select.EPOLLOUT:
            peer.flush()
        try:
            messages = peer.read()
        except BadFrame:
            nursery.kill()  # user code has written where it should not
            return
        for message in messages:
            before = nursery.trouble
            nursery.hear(message)
            if nursery.trouble and nursery.trouble != before and not (nursery.guard and self.refuse(nursery)):
                self._notice(
                    f"dq can't import {nursery.context.script or 'the code'}; its steps wait. dq tries again when the "
                    f"file changes, when a client connects, and every {BROKEN_WAIT:.0f} s.\n{nursery.trouble}"
                )
        if peer.closed:
            self._poller.unregister(peer.fd)  # its death follows

    def _template_died(self, nursery: Nursery) -> None:
        if not nursery.dead():
            return
        self._poller.unregister(nursery.pidfd)
        nursery.buried(self._clock.monotonic())
        if nursery.failures == GIVE_UP and not nursery.trouble:
            self._notice(
                f"the template of {nursery.context.script or 'the code'} died {GIVE_UP} times in a row before it was ready; "
                f"its steps wait. dq goes on trying, every {BACKOFF[-1]:.0f} s."
            )
        if nursery.spawns:
            return  # what it was asked for are processes of their own
        for member in [m for m in self.members if m.nursery is nursery and not m.pid]:
            self.hear(member, 0)  # it may have joined a moment ago
            if not member.pid:
                self.lose(member)

    def keep(self, now: float) -> None:
        """Hires what is missing. Called in each turn; cheap when nothing is."""
        if self.closing:
            return
        for lane in self._scheduler.lanes.values():
            self._staff(lane, now)
        for context in self.homeless:
            self._host(context, now)
        for host in [host for host in self.retiring if not host.runs]:
            self.retiring.discard(host)
            self.dismiss(host)
        if len(self.nurseries) > len(self._scheduler.nurseries):
            self._end_templates()

    def _end_templates(self) -> None:
        """Ends templates of code that was edited since, when their last member has left."""
        kept = {*self._scheduler.nurseries.values(), *[member.nursery for member in self.members]}
        for nursery in [nursery for nursery in self.nurseries if nursery not in kept]:
            if nursery.pid:
                nursery.kill()
            else:
                self.nurseries.remove(nursery)

    def _staff(self, lane: Lane, now: float) -> None:
        if not lane.pending and not lane.members:
            return
        for member in lane.members:
            if member.nursery is not lane.nursery and not member.stopping and not member.outstanding:
                self.dismiss(member)
        wanted = self._wanted(lane)
        if len(lane.members) >= wanted or now < lane.retry_at or not self._prepare(lane.nursery, now):
            return
        while len(lane.members) < wanted and lane.pool.count < lane.pool.size:
            if not self._free or sum(not member.pid for member in lane.members) >= STARTING_MAX:
                return
            if self._hire(WORKER, lane, lane.nursery, lane.pool.spec, now) is None:
                return
        if len(lane.members) < wanted:
            self._make_room(lane, now)

    @staticmethod
    def _wanted(lane: Lane) -> int:
        """How many members a lane may have: all of the pool, or its share where other lanes have work too."""
        if not lane.pending:
            return len(lane.members)
        busy = sum(other.pending > 0 or any(m.outstanding for m in other.members) for other in lane.pool.lanes)
        return lane.pool.size if busy <= 1 else max(1, lane.pool.size // busy)

    def _make_room(self, lane: Lane, now: float) -> None:
        """The pool is full, and a lane with work has less than its share: asks one member of another lane to leave.

        First one of a lane without work, then one of a lane with more than its share. Where there are more lanes with
        work than members, they take turns.
        """
        others = [other for other in lane.pool.lanes if other is not lane and other.members]
        if any(member.stopping for other in others for member in other.members):
            return  # room is being made
        idle = [m for other in others if not other.pending for m in other.members if m.ready and not m.outstanding]
        rich = [m for other in others if len(other.members) > self._wanted(other) for m in other.members]
        old = [] if lane.members else [m for o in others for m in o.members if now - m.born_at > TURN]
        for candidates in (idle, rich, old):
            if candidates:
                self.dismiss(min(candidates, key=lambda member: (member.outstanding, member.born_at)))
                return

    def _host(self, context_id: int, now: float) -> None:
        nursery = self.nursery(context_id)
        _, retry_at = self.host_failures.get(context_id, (0, 0.0))
        if context_id not in self.hosts and now >= retry_at and self._prepare(nursery, now) and self._free:
            host = self._hire(HOST, None, nursery, "", now)
            if host is not None:
                self.hosts[context_id] = host

    def _hire(self, kind: str, lane: Lane | None, nursery: Nursery, executor: str, now: float) -> Member | None:
        """A new member, or None where the system has no room for one now."""
        member = Member(kind, lane, nursery, self._free.pop(), nonce(), now)
        try:
            nursery.fork(member, executor, self._ledger.boot_epoch, self._ledger.salt)
        except OSError as error:
            self._free.append(member.slot)
            member.why = f"the system refuses another process or descriptor ({error})"
            self._count_failure(member, lane, now)
            return None
        self.members.add(member)
        if lane is not None:
            lane.members.append(member)
        self._poller.handle(member.peer.fd, lambda mask: self.hear(member, mask))
        self._poller.handle(member.control.fd, lambda mask: self.hear_control(member, mask))
        return member

    def dismiss(self, member: Member) -> None:
        """Lets a member finish what it has begun, and leave."""
        if not member.stopping:
            member.stopping = True
            member.control.send(frames.Stop())

    def kill(self, member: Member, why: str) -> None:
        """Kills a member's whole group. What it held is freed when the kernel says that it is dead."""
        if member not in self.members:
            return  # it is dead and buried, and by now its number may be somebody else's
        member.why = member.why or why
        member.stopping = True
        if member.pid:
            self._kernel.kill(member.pid, member.pidfd)

    def look_again(self) -> None:
        """Scripts that could not be imported may be mended. Of those whose import takes long, people are told."""
        now = self._clock.monotonic()
        for nursery in self.nurseries:
            if nursery.is_mended():
                nursery.try_again(tell=False)
            if (
                nursery.pid
                and not (nursery.ready or nursery.trouble or nursery.slow)
                and now - nursery.since > START_MAX
            ):
                nursery.slow = True
                self._notice(
                    f"{nursery.context.script or 'the code'} is still being imported, after {now - nursery.since:.0f} s (pid "
                    f"{nursery.pid}); its steps wait. Where it hangs, `py-spy dump --pid {nursery.pid}` tells in which line, and "
                    f"`kill -9 {nursery.pid}` has it begin anew."
                )

    def overdue(self, now: float) -> list[Member]:
        """Members that were asked for and are not ready in time."""
        limit = SPAWN_MAX if self._start_method == "spawn" else START_MAX
        return [m for m in self.members if not m.ready and now - m.born_at > limit]

    def bury(self, member: Member, now: float) -> None:
        """Takes a dead member off the lists; its slot is free when its evidence is in the file."""
        self.members.discard(member)
        self.retiring.discard(member)
        self._scheduler.ahead.discard(member)
        lane = member.lane
        if lane is not None and member in lane.members:
            lane.members.remove(member)
        if member.kind == HOST and self.hosts.get(member.nursery.context_id) is member:
            del self.hosts[member.nursery.context_id]
        for peer in (member.peer, member.control):
            peer.close()
        self._count_failure(member, lane, now)

    def _count_failure(self, member: Member, lane: Lane | None, now: float) -> None:
        """A member that died before it did anything is not replaced at once: the cause may be there for long."""
        failed = not member.ready and not member.stopping
        if lane is not None:
            lane.failures = lane.failures + 1 if failed else 0
            lane.retry_at = now + BACKOFF[min(lane.failures, len(BACKOFF) - 1)]
            failures = lane.failures
        else:
            context = member.nursery.context_id
            failures = self.host_failures.get(context, (0, 0.0))[0] + 1 if failed else 0
            self.host_failures[context] = (failures, now + BACKOFF[min(failures, len(BACKOFF) - 1)])
        if failures == GIVE_UP:
            self._notice(
                f"{failures} {member.kind}s in a row died before they could start"
                f"{': ' + member.why if member.why else ''}. dq goes on trying, every {BACKOFF[-1]:.0f} s."
            )

    def free_slot(self, slot: int) -> None:
        self._free.append(slot)

    def next_try(self, now: float) -> float | None:
        """Seconds until a back-off ends that somebody waits for."""
        due = [lane.retry_at for lane in self._scheduler.lanes.values() if lane.pending and lane.retry_at > now]
        due += [at for _, at in self.host_failures.values() if at > now]
        due += [n.retry_at for n in self.nurseries if n.peer is None and n.retry_at > now]
        return max(0.0, min(due) - now) if due else None
