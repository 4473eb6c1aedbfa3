"""Which member gets which steps next.

Long steps are claimed one at a time. Short ones are claimed ahead, as many as a member does in about the time of a
commit, so that it never waits for the supervisor; what it has not begun is taken back when it turns out to be stuck.
Owners (clients and hosts) take turns, so that one that floods the queue does not starve another.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from dq.crew.claims import Batch, Claim, Row, Segment, Span
from dq.crew.members import Lane, Member, Pool
from dq.executor import frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dq.crew.committer import Committer
    from dq.crew.ledger import Function, Ledger, Run
    from dq.crew.members import Line
    from dq.crew.nursery import Nursery
    from dq.crew.queues import Place, Queues
    from dq.crew.terms import Terms
    from dq.executor.contract import Capability
    from dq.model.clock import Clock
    from dq.store.store import Store

AHEAD = 2_000_000  # nanoseconds of work that a member may hold, besides the time of a sync
CLAIM_ROWS = 256
HOLD_ROWS = 448  # rows that one member may hold; its slot has room for 512
CLAIM_BYTES = 1 << 20
STUCK = 0.005  # seconds without a result after which a member gives back what it has not begun
LOADED_ROWS = 50_000  # beyond this, pending rows stay in the file until their turn comes
LOADED_BYTES = 64 << 20
CHUNK = 1024  # rows read from the file at a time
OUT_MAX = 8 << 20  # bytes; results that a client does not read hold back its own steps only

_json = msgspec.json.Encoder()


class Scheduler:
    """The queues and the claims."""

    def __init__(self, ledger: Ledger, store: Store, committer: Committer, clock: Clock) -> None:
        self._ledger = ledger
        self._store = store
        self._committer = committer
        self._clock = clock
        self.pools: dict[str, Pool] = {}
        self.lanes: dict[tuple[str, int], Lane] = {}
        self.nurseries: dict[int, Nursery] = {}  # the current one of each context
        self.open_nursery: Callable[[int], Nursery]  # set by the supervisor
        self.terms: Terms  # the same
        self.watch: Callable[[Member, int], None]  # the same; for members that have steps with a time limit
        self.queues: Queues  # the same
        self.draining = False
        self.ahead: set[Member] = set()  # members that hold rows which they have not begun
        self.stale = 0  # results and ends that were refused: their claim was over
        self.claimed = 0  # rows that members hold
        self._loaded_rows = 0
        self._loaded_bytes = 0

    def add_pool(self, name: str, spec: str, members: int, slots: int, capabilities: Capability) -> None:
        self.pools[name] = Pool(name, spec, members, slots, capabilities)

    def lane(self, function: Function) -> Lane | None:
        """Where a function's steps wait; None if no executor of that name is there that can do what it needs."""
        pool = self.pools.get(function.executor)
        if pool is None or (function.needs is not None and function.needs not in pool.capabilities):
            return None
        lane = self.lanes.get((pool.name, function.context))
        if lane is None:
            lane = self.lanes[pool.name, function.context] = Lane(pool, self.open_nursery(function.context))
            pool.lanes.append(lane)
        return lane

    def enqueue(
        self, lane: Lane, owner: int, rows: list[Row], batch: Batch | None, run: Run | None = None, *, spill: bool = True,
        place: Place | None = None,
    ) -> None:  # fmt: skip
        """Rows of one function that are in the group already. When memory is full they wait in the file, if they may `spill`."""
        apart = place is not None  # a stretch of ids is read as a whole, so what has terms is put down row by row
        place = place or self._usual(rows[0][2])
        queue = self._queue(lane, owner, len(rows), place)
        size = sum([len(row[3]) for row in rows])
        full = self._loaded_rows >= LOADED_ROWS or self._loaded_bytes + size > LOADED_BYTES
        if full and spill and (batch or run):
            for part in [[row] for row in rows] if apart else [rows]:
                span = Span(part[0][2], part[0][0], part[-1][0], len(part))
                queue.append(Segment.stored(span, batch, run).placed(place))
            for row in rows:
                self._ledger.flow.pop(row[0], None)
            return
        self._loaded_rows += len(rows)
        self._loaded_bytes += size
        last = queue[-1] if queue else None
        if last is not None and batch is None and last.batch is None and not last.left and last.size < CHUNK:
            last.rows += rows
        else:
            queue.append(Segment(rows, batch).placed(place))

    def enqueue_stored(self, span: Span, batch: Batch | None, run: Run | None, place: Place | None = None) -> bool:
        """Rows that an earlier supervisor has left in the file; False if nobody here can run them."""
        lane = self.lane(self._ledger.functions[span.function])
        if lane is not None:
            place = place or self._usual(span.function)
            self._queue(lane, 0, span.steps, place).append(Segment.stored(span, batch, run).placed(place))
        return lane is not None

    def requeue(self, rows: Iterable[tuple[Row, Batch | None]]) -> None:
        """Rows whose claim is over, or that are due now, go to the front."""
        for row, batch in rows:
            function = self._ledger.functions[row[2]]
            lane = self.lane(function)
            if lane is not None:
                owner = batch.owner.fd if batch is not None and batch.owner is not None else 0
                place = self.queues.place(row[0], function) if function.has_terms else self._usual(row[2])
                self._queue(lane, owner, 1, place).appendleft(Segment([row], batch).placed(place))
                self._loaded_rows += 1
                self._loaded_bytes += len(row[3])

    def _usual(self, function: int) -> Place | None:
        """Where the steps of a function wait that have no terms of their own; None: for a worker only."""
        queue = self._ledger.functions[function].queue
        return (queue.gate(), 0) if queue is not None else None

    def _queue(self, lane: Lane, owner: int, count: int, place: Place | None) -> deque[Segment]:
        """Where so many more rows of an owner are about to wait."""
        line: Line = lane
        if place is not None:
            line = self.queues.enter(lane, place, count)
        else:
            lane.pending += count
        waiting = line.queues.get(owner)
        if waiting is None:
            waiting = line.queues[owner] = deque()
            line.turns.append(owner)
        return waiting

    def dispatch(self) -> None:
        """Hands out what can be handed out now."""
        while not self.draining:
            for lane in self.lanes.values():
                if lane.pending:
                    self._feed(lane)
            if not self.queues.once_more():
                break

    def _feed(self, lane: Lane) -> None:
        hungry = deque(m for m in lane.members if self.room(m) > 0)
        while hungry and lane.pending:
            member = hungry.popleft()
            if self._claim(lane, member) and self.room(member) > 0:
                hungry.append(member)

    def room(self, member: Member) -> int:
        """Rows that a member may be given besides those it holds, before their cost is looked at."""
        if not member.ready or member.stopping or member.revoked:
            return 0
        lane = member.lane
        assert lane is not None
        if member.nursery is not lane.nursery:
            return 0
        slots = lane.pool.slots
        if member.outstanding < slots:
            return HOLD_ROWS
        return HOLD_ROWS - member.outstanding if member.load < self._horizon() * slots // 2 else 0

    def _horizon(self) -> int:
        return AHEAD + int(1.5e9 * self._committer.cost)

    def _claim(self, lane: Lane, member: Member) -> bool:
        segment = self.queues.next(lane, member) if lane.ready else self.first(lane, lane)
        if segment is None:
            return False
        function = self._ledger.functions[segment.rows[segment.at][2]]
        if function.cost < 0 and member.outstanding >= lane.pool.slots:
            # Nobody knows how long it would wait there. It keeps its turn, or it might never find a member that is free.
            self.queues.line(lane, segment).turns.rotate(1)
            return False
        rows = self._take(lane, segment, function, member)
        estimate = max(function.cost, 500)
        claim = Claim(self._ledger.epoch(), segment.batch, rows, estimate, segment.gate)
        if lane.gates:
            self.queues.took(lane, segment, member, rows)
        if segment.gate is None:
            lane.pending -= len(rows)
        member.claims[claim.epoch] = claim
        if not member.outstanding:
            member.busy_since = self._clock.monotonic()
        member.outstanding += len(rows)
        self.claimed += len(rows)
        member.load += estimate * len(rows)
        if member.outstanding > lane.pool.slots:
            self.ahead.add(member)
        self._record(member, claim, rows)
        return True

    def _take(self, lane: Lane, segment: Segment, function: Function, member: Member) -> list[Row]:
        """As many of a segment's rows as fit: by cost, by fairness among members, by bytes; one function at a time."""
        slots = lane.pool.slots
        cost = function.cost
        free = max(1, slots - member.outstanding)
        # What nobody knows the cost of yet is claimed one at a time.
        count = free if cost < 0 else max(free, (self._horizon() * slots - member.load) // max(cost, 500))
        members = max(1, sum([m.ready for m in lane.members]))
        share = -(-lane.pending // members)
        count = min(count, max(share, 1), CLAIM_ROWS, HOLD_ROWS - member.outstanding)
        if segment.gate is not None:
            count = segment.gate.room(member, slots, members, count)
        rows = segment.take(max(count, 1))
        number, size, keep = function.id, 0, 0
        for row in rows:
            size += len(row[3])
            if row[2] != number or (size > CLAIM_BYTES and keep):
                break
            keep += 1
        segment.at -= len(rows) - keep
        return rows[:keep]

    def _record(self, member: Member, claim: Claim, rows: list[Row]) -> None:
        """The claim's row goes into the group; the frame leaves when that is in the WAL."""
        committer = self._committer
        steps = _json.encode([row[:2] for row in rows]).decode()
        committer.group.claims.append((claim.epoch, member.slot, member.pid, steps, self._clock.now()))
        committer.dirty = True
        mail = committer.after_commit
        wary = self._ledger.wary
        if wary and not wary.isdisjoint(claim.open):
            mail = committer.after_sync
            committer.eager = True
        for number in {row[2] for row in rows} - member.defined:
            member.defined.add(number)
            mail.append((member.peer, self._ledger.functions[number].define))
        runs = self._ledger.run_names(rows) if claim.batch is None else []
        mail.append((member.peer, frames.Claim(claim.epoch, rows, self._ledger.tries(rows), runs)))
        if timeout := self._ledger.functions[rows[0][2]].options.timeout:
            self.watch(member, timeout)

    def first(self, lane: Lane, line: Line) -> Segment | None:
        """The segment of a lane's line whose turn it is, loaded."""
        for _ in range(len(line.turns)):
            owner = line.turns[0]
            line.turns.rotate(-1)
            queue = line.queues[owner]
            while queue:
                segment = queue[0]
                if segment.at < len(segment.rows) or self.load(lane, segment, CHUNK):
                    break
                queue.popleft()
            if not queue:
                del line.queues[owner]
                line.turns.remove(owner)
                continue
            batch = queue[0].batch
            if batch is not None and batch.owner is not None and batch.owner.out_bytes > OUT_MAX:
                continue
            return queue[0]
        return None

    def load(self, lane: Lane, segment: Segment, count: int) -> bool:
        """Reads up to `count` more of a segment's rows from the file; False when there is none."""
        if segment.left and self._committer.dirty:
            self._committer.commit()  # what is read must have been written
        while segment.left:
            made = self._read(segment, max(count, 1))
            if not made:
                left, segment.left = segment.left, 0
                self.fewer(lane, segment, left)  # they have ended meanwhile
                break
            segment.after = made[-1][0]
            made = [row for row in made if row[1] == segment.function]
            if made and self._append(lane, segment, made):
                return True
        return False

    def _append(self, lane: Lane, segment: Segment, made: list[tuple[int, int, bytes]]) -> bool:
        """Rows from the file; False where none of them may begin yet."""
        tried = self._store.attempts([row[0] for row in made])
        found: list[Row] = [(id, tried[id][0] + 1, function, args) for id, function, args in made]
        if segment.run is not None:
            self._ledger.flow.update((row[0], segment.run) for row in found)
        rows = self.terms.recall(found, segment)
        segment.rows = segment.rows[segment.at :] + rows
        segment.at = 0
        segment.left = max(0, segment.left - len(found))
        self.fewer(lane, segment, len(found) - len(rows))
        self._loaded_rows += len(rows)
        self._loaded_bytes += sum([len(row[3]) for row in rows])
        return bool(rows)

    def _read(self, segment: Segment, count: int) -> list[tuple[int, int, bytes]]:
        if segment.run is not None:
            run, function = segment.run.id, segment.function
            return self._store.open_flow_steps(run, function, segment.after, segment.last, limit=count)
        return self._store.open_steps(segment.after + 1, segment.last, limit=count)

    def fewer(self, lane: Lane, segment: Segment, count: int) -> None:
        """So many of a segment's rows do not wait any more."""
        if segment.gate is None:
            lane.pending -= count
        elif count:
            self.queues.leave(lane, segment.gate, count)

    def unload(self, rows: Iterable[Row]) -> None:
        """These rows are not in memory any more, or are about to be counted again."""
        for row in rows:
            self._loaded_rows -= 1
            self._loaded_bytes -= len(row[3])

    def closed(self, member: Member, claim: Claim, rows: list[Row]) -> None:
        """Rows of a claim that have a result, or are given back."""
        self.unload(rows)
        self.claimed -= len(rows)
        member.outstanding -= len(rows)
        member.load -= claim.estimate * len(rows)
        member.revoked = False
        member.busy_since = self._clock.monotonic()
        if claim.gate is not None:
            self.queues.freed(claim.gate, member, len(rows))
        lane = member.lane
        if lane is not None and member.outstanding <= lane.pool.slots:
            self.ahead.discard(member)
        if not claim.open:
            del member.claims[claim.epoch]
            self._committer.group.closed_claims.append((claim.epoch,))
            self._committer.dirty = True

    def revoke_stuck(self) -> None:
        """A member that is at one step for longer than expected gives back those behind it."""
        now = self._clock.monotonic()
        for member in list(self.ahead):
            if not member.revoked and now - member.busy_since >= STUCK:
                member.revoked = True
                member.control.send(frames.Revoke())

    def gave_back(self, member: Member, given: list[tuple[int, int]]) -> None:
        """Rows that a stuck member has not begun and will not begin."""
        back: list[tuple[Row, Batch | None]] = []
        elapsed = int((self._clock.monotonic() - member.busy_since) * 1e9)
        since = member.busy_since
        for epoch in dict.fromkeys(epoch for epoch, _ in given):
            claim = member.claims.get(epoch)
            if claim is None:
                continue
            ids = [id for e, id in given if e == epoch]
            rows = [claim.open.pop(id) for id in ids if id in claim.open]
            back += [(row, claim.batch) for row in rows]
            self.closed(member, claim, rows)
            self.trim(claim)
        for function in {row[2] for claim in member.claims.values() for row in claim.open.values()}:
            known = self._ledger.functions[function]  # what is left is what it has begun
            known.cost = max(known.cost, elapsed)
        member.busy_since = since
        member.revoked = bool(member.outstanding)
        self.ahead.discard(member)
        self._committer.tidy()
        self.requeue(reversed(back))

    def trim(self, claim: Claim) -> None:
        """Rows of a claim wait again; the file must not say that a member has them."""
        if claim.open:
            steps = _json.encode([row[:2] for row in claim.open.values()]).decode()
            self._committer.group.trimmed_claims.append((steps, claim.epoch))
            self._committer.dirty = True

    def timeout(self) -> float | None:
        """Seconds until a member may have to give something back."""
        waiting = [m.busy_since for m in self.ahead if not m.revoked]
        return max(0.0, min(waiting) + STUCK - self._clock.monotonic()) if waiting else None

    def forget(self, member: Member) -> None:
        """Closes all claims of a dead member; their rows have been dealt with."""
        for claim in member.claims.values():
            self._committer.group.closed_claims.append((claim.epoch,))
            if claim.gate is not None:
                self.queues.lost(claim.gate, member)
        self._committer.tidy()  # their steps wait again, and the file should say so
        member.claims.clear()
        self.claimed -= member.outstanding
        member.outstanding = member.load = 0
        self.ahead.discard(member)
