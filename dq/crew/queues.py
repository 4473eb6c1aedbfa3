"""Queues: which steps wait although a worker is free, and who goes first.

What is limited, or has a priority, waits at a gate (`gates`). A gate is asked when a member can take something, so that
nothing is let through before it can begin, and a step that comes with a higher priority overtakes all that wait. What is
let through counts until its claim on it is over: when it has a result, is given back, or its member is dead.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from dq.crew.gates import NO_LIMITS, Gate, Limits, Queue, describe, parse
from dq.store.group import BeginRow, QueueRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dq.crew.claims import Segment
    from dq.crew.ledger import Function
    from dq.crew.members import Lane, Line, Member
    from dq.crew.supervisor import Supervisor

Place = tuple[Gate, int]  # where rows wait, and with which priority


class Queues:
    """All queues by name. The one without a name and without limits is for what has a priority only."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self.by_name: dict[str, Queue] = {}
        self._plain = Queue("")
        self._told: set[tuple[str, Limits]] = set()
        self._strict = True  # whether lanes let one another go first
        self._yielded = False

    def load(self) -> None:
        """Reads what an earlier supervisor has left: limits, pauses, and what began a moment ago."""
        for row in self._sup.store.queues():
            queue = self.queue(row.name)
            limits = Limits(row.concurrency, row.per_worker, row.rate_count, row.rate_period)
            queue.paused = bool(row.paused)
            if row.overridden:
                queue.by_hand = limits
            elif limits != NO_LIMITS:
                queue.code = limits
        for begin in self._sup.store.begins():
            self.queue(begin.queue).gate(begin.key).recent[begin.step, begin.attempt] = begin.at
        for queue in self.by_name.values():
            self._look(queue)

    def queue(self, name: str) -> Queue:
        """The queue of a name; whoever names it first makes it."""
        queue = self.by_name.get(name)
        if queue is None:
            queue = self.by_name[name] = Queue(name)
        return queue

    def seen(self, function: Function, *, fresh: bool = True) -> None:
        """A function is defined whose steps wait in a queue. The last definition that is seen is the one that counts."""
        name, limits = parse(function.options.queue)
        queue = function.queue = self.queue(name)
        before, queue.code = queue.code, limits
        if not fresh or before == limits:
            return
        if before is not None and (name, limits) not in self._told:
            self._told |= {(name, limits), (name, before)}
            self._sup.notice(
                f"the queue {name!r} is defined with other limits than before: {describe(limits)} ({function.name}), and "
                f"before that {describe(before)}. The last definition counts. Give all its steps the same dq.Queue."
            )
        if queue.by_hand is None:
            self.write(queue)
            self._look(queue)

    def write(self, queue: Queue) -> None:
        """Puts down what a queue is set to."""
        row = QueueRow(queue.name, *queue.limits, int(queue.paused), int(queue.by_hand is not None))
        self._sup.committer.group.queues.append(row)
        self._sup.committer.dirty = True

    def change(self, queue: Queue, paused: bool, by_hand: Limits | None) -> None:
        """Pauses a queue, lets it go on, or sets its limits by hand; None: back to what the code says."""
        queue.paused, queue.by_hand = paused, by_hand
        self.write(queue)
        self._look(queue)

    def clock_was_set(self) -> None:
        """The system's clock was set: a rate must not look back from a time that comes in an hour, or a year."""
        for queue in self.by_name.values():
            self._look(queue)

    def _look(self, queue: Queue) -> None:
        for gate in list(queue.gates.values()):
            self._update(gate)

    def place(self, step: int, function: Function) -> Place | None:
        """Where a step waits whose row is in the file; None: for a worker only."""
        term = self._sup.store.terms([step]).get(step) if function.has_terms else None
        if term is None:
            return (function.queue.gate(), 0) if function.queue is not None else None
        return self.place_for(function, term.priority, term.key)

    def place_for(self, function: Function, priority: int, key: str) -> Place | None:
        """Where a step with these terms waits; None: for a worker only."""
        if priority or key:
            function.has_terms = True
        if function.queue is not None:
            return function.queue.gate(key), priority
        return (self._plain.gate(), priority) if priority else None

    def enter(self, lane: Lane, place: Place, count: int) -> Line:
        """Rows of a lane are about to wait; returns where."""
        gate, priority = place
        line = gate.line(lane, priority)
        gate.waits[lane].count += count
        lane.gates.add(gate)
        if gate.is_open:
            lane.pending += count
            lane.ready.setdefault(priority, OrderedDict())[gate] = None
        return line

    def leave(self, lane: Lane, gate: Gate, count: int) -> None:
        """Rows of a lane do not wait any more."""
        waiting = gate.waits[lane]
        waiting.count -= count
        if gate.is_open:
            lane.pending -= count
        if waiting.count <= 0:
            self._delist(gate, lane)
            del gate.waits[lane]
            lane.gates.discard(gate)
            if gate.is_idle:
                self._update(gate)

    def line(self, lane: Lane, segment: Segment) -> Line:
        """Where a segment waits."""
        return lane if segment.gate is None else segment.gate.line(lane, segment.priority)

    def next(self, lane: Lane, member: Member) -> Segment | None:
        """The segment whose turn it is: of the highest priority of which something may begin in this member."""
        first = self._sup.scheduler.first
        for priority in sorted({0, *lane.ready}, reverse=True):
            if priority or not lane.plain_next:
                segment = self._gated(lane, member, priority)
                if segment is None and not priority:
                    segment = first(lane, lane)
            else:
                segment = first(lane, lane) or self._gated(lane, member, 0)
            if segment is not None:
                return segment
        return None

    def _gated(self, lane: Lane, member: Member, priority: int) -> Segment | None:
        gates = lane.ready.get(priority, OrderedDict())
        refused: set[Gate] = set()
        while True:
            for gate in gates:
                if gate not in refused and not gate.is_full_for(member) and not self._yields(gate, lane, priority):
                    break
            else:
                return None
            line = gate.line(lane, priority)
            segment = self._sup.scheduler.first(lane, line)
            if segment is not None:
                return segment
            refused.add(gate)
            if not line.turns and lane in gate.waits:
                self._drop_line(gate, lane, priority)

    def _yields(self, gate: Gate, lane: Lane, priority: int) -> bool:
        """Whether another lane's row goes before: it has a higher priority, or waits for longer, and somebody is free."""
        if len(gate.waits) == 1 or not self._strict or gate.queue.limits == NO_LIMITS:
            return False
        best, most = lane, priority
        seen = False
        for other, waiting in gate.waits.items():
            seen = seen or other is lane
            top = max(waiting.lines)
            if top > most or (top == most and best is lane and not seen):
                best, most = other, top
        scheduler = self._sup.scheduler
        if best is lane or not any(scheduler.room(found) > 0 for found in best.members):
            return False
        self._yielded = True
        return True

    def once_more(self) -> bool:
        """Whether a lane has let another one go first that then took nothing: it may take its turn itself."""
        again, self._yielded = self._yielded and self._strict, False
        self._strict = not again
        return again

    def took(self, lane: Lane, segment: Segment, member: Member, rows: list[tuple[int, int, int, bytes]]) -> None:
        """These rows are about to be claimed by a member."""
        gate = segment.gate
        if gate is None:
            lane.plain_next = False
            return
        lane.plain_next = lane.plain_next or not segment.priority
        ready = lane.ready.get(segment.priority)
        if ready is not None and gate in ready:
            ready.move_to_end(gate)
        gate.waits.move_to_end(lane)
        gate.running += len(rows)
        gate.held[member] = gate.held.get(member, 0) + len(rows)
        if gate.queue.limits.begins:
            now = self._sup.clock.now()
            for row in rows:
                gate.recent[row[0], row[1]] = now
            self._sup.committer.group.begins += [
                BeginRow(gate.queue.name, gate.key, row[0], row[1], now) for row in rows
            ]
        self.leave(lane, gate, len(rows))
        self._update(gate)

    def freed(self, gate: Gate, member: Member, count: int) -> None:
        """So many rows that a member held have a result, or are given back."""
        left = gate.held.get(member, 0) - count
        gate.running -= count
        if left > 0:
            gate.held[member] = left
        else:
            gate.held.pop(member, None)
        self._update(gate)

    def lost(self, gate: Gate, member: Member) -> None:
        """A member is dead."""
        self.freed(gate, member, gate.held.get(member, 0))

    def began(self, gate: Gate, rows: Iterable[tuple[int, int, int]]) -> None:
        """When the bodies of (step, attempt, microseconds UTC) began, which is somewhat later than they were let through."""
        for step, attempt, at in rows:
            if (step, attempt) in gate.recent:
                gate.recent[step, attempt] = max(gate.recent[step, attempt], min(at, self._sup.clock.now()))

    def _update(self, gate: Gate) -> None:
        """Opens or shuts a gate, and forgets one that has nothing to remember."""
        if gate.recent:
            self._expire(gate)
        opens = gate.may_open()
        if opens != gate.is_open:
            gate.is_open = opens
            for lane, waiting in gate.waits.items():
                if opens:
                    lane.pending += waiting.count
                    for priority in waiting.lines:
                        lane.ready.setdefault(priority, OrderedDict())[gate] = None
                else:
                    lane.pending -= waiting.count
                    self._delist(gate, lane)
        if gate.is_idle and gate.queue.gates.get(gate.key) is gate:
            del gate.queue.gates[gate.key]

    def shut_out(self) -> int:
        """How many rows wait at gates that are shut."""
        gates = [gate for queue in self.by_name.values() for gate in queue.gates.values()]
        return sum(gate.waiting for gate in gates if not gate.is_open)

    def _delist(self, gate: Gate, lane: Lane) -> None:
        for priority in gate.waits[lane].lines:
            ready = lane.ready.get(priority)
            if ready is not None:
                ready.pop(gate, None)
                if not ready:
                    del lane.ready[priority]

    def _drop_line(self, gate: Gate, lane: Lane, priority: int) -> None:
        """Nothing of this priority waits any more."""
        del gate.waits[lane].lines[priority]
        ready = lane.ready.get(priority)
        if ready is not None:
            ready.pop(gate, None)
            if not ready:
                del lane.ready[priority]

    def _expire(self, gate: Gate) -> None:
        """Forgets what began longer ago than the rate looks back, and comes again when that is due for the oldest."""
        now, period = self._sup.clock.now(), gate.queue.limits.period
        gone = self._sup.committer.group.ended_begins
        begins = gate.recent.values()
        if gate.alarm_at > now + period + 1 or next(iter(begins)) > now or next(reversed(begins)) > now:
            # The system's clock was set back: nothing began later than now, and nobody looks again too late.
            gate.recent = OrderedDict((key, min(at, now)) for key, at in gate.recent.items())
            gate.alarm_at = 0
        while gate.recent:
            (step, attempt), at = next(iter(gate.recent.items()))
            if at + period >= now and period:
                break
            del gate.recent[step, attempt]
            gone.append((gate.queue.name, gate.key, step, attempt))
            self._sup.committer.dirty = True
        if gate.recent and gate.alarm_at <= now:
            gate.alarm_at = next(iter(gate.recent.values())) + period + 1
            self._sup.alarms.at(gate.alarm_at, lambda: self._update(gate))
