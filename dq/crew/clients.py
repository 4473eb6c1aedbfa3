"""What clients ask of the supervisor, message by message."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from dq import errors
from dq.crew.bookings import Bookings
from dq.crew.census import census
from dq.crew.claims import Batch, Row, stretches
from dq.crew.forks import Forks
from dq.crew.leases import Leases
from dq.crew.peer import Peer
from dq.crew.queuing import Queuing
from dq.crew.targets import unfinished
from dq.crew.upkeep import Upkeep
from dq.crew.withdrawals import withdraw
from dq.executor import frames
from dq.executor.frames import BadFrame
from dq.model.states import CANCELLED, FAILED, STATUS, RunState

if TYPE_CHECKING:
    from collections.abc import Callable

    from dq.crew.hosts import Hosts
    from dq.crew.ledger import Function, Run
    from dq.crew.nursery import Nursery
    from dq.crew.results import Results
    from dq.crew.supervisor import Supervisor

LIST_MAX = 1000  # runs in one answer
ADOPT_CHUNK = 500  # recorded results in one frame


class Client:
    """One connection, and the numbers it has given to its functions."""

    def __init__(self, peer: Peer, context: int) -> None:
        self.peer = peer
        self.context = context
        self.functions: dict[int, Function] = {}
        self.ids = Leases()
        self.batches: set[Batch] = set()
        # Who wants results of steps that are this one's while it is here.
        self.heirs: list[tuple[Client, set[int]]] = []

    def owns_fresh(self, rows: list[tuple[int, int, bytes]]) -> bool:
        """Whether ids are consecutive, of a lease of this connection, and above all that were submitted from it.

        Others may be known to the file: of a lease that an earlier supervisor gave, or out of order.
        """
        ids = [row[0] for row in rows]
        return ids == list(range(ids[0], ids[0] + len(ids))) and self.ids.spend(ids[0], ids[-1])


class Clients:
    """Answers clients. Whatever is promised to them leaves by `committer.after_sync`."""

    def __init__(self, supervisor: Supervisor, hosts: Hosts, results: Results) -> None:
        self._sup = supervisor
        self._ledger = supervisor.ledger
        self._committer = supervisor.committer
        self._scheduler = supervisor.scheduler
        self._store = supervisor.store
        self._hosts = hosts
        self._results = results
        self.all: dict[int, Client] = {}
        self.leaving: set[Peer] = set()  # said goodbye, and have not hung up yet
        self.seen = 0
        self._handlers: dict[type, Callable[[Client, Any], None]] = {
            frames.Define: self._define, frames.Submit: self._submit, frames.Resubmit: self._resubmit,
            frames.Adopt: self._adopt, frames.Start: self._start, frames.Find: self._find, frames.Watch: self._watch,
            frames.Cancel: self._cancel, frames.Census: self._census, frames.Flush: self._flush,
            frames.Lease: self._lease, frames.Bye: self._bye, frames.Signal: self._signal,
            frames.CancelRun: self._cancel_run, frames.Resume: self._resume,
            frames.Release: supervisor.attempts.release, frames.Execute: supervisor.effects.execute,
            frames.ListRuns: self._list, frames.Published: supervisor.publishing.read, frames.Follow: supervisor.publishing.follow,
            **Bookings(supervisor, self).handlers, frames.ForkRun: Forks(supervisor, self).fork,
            **Upkeep(supervisor, self).handlers, **Queuing(supervisor, self).handlers,
        }  # fmt: skip

    def hear(self, client: Client, message: frames.Any) -> bool:
        """Does what a client asks; False where its message has no place here."""
        handler = self._handlers.get(type(message))
        if handler is None:
            return False
        handler(client, message)
        return True

    def answer(self, client: Client, message: frames.Message, *, eager: bool = True) -> None:
        """Sends when everything decided so far is on disk."""
        self._committer.after_sync.append((client.peer, message))
        self._committer.eager = self._committer.eager or eager

    def welcome(self, peer: Peer, hello: frames.Hello) -> Client:
        context = 0
        if hello.context is not None:
            context = self._ledger.context(hello.context)
            if self._scheduler.pools and self._sup.options.workers:
                self._sup.staff.renew(context, hello.context)
        if hello.works and not self._sup.options.workers:
            self._sup.stop("somebody comes who brings workers", now=True)
        client = self.all[peer.fd] = Client(peer, context)
        self.seen += 1
        first, count = self._lease_to(client)
        works = bool(self._sup.options.workers)
        self.answer(client, frames.Welcome(self._ledger.boot_epoch, self._sup.pid, first, count, works))
        return client

    def refuse(self, nursery: Nursery) -> bool:
        """Tells the clients whose script lacks its guard; False if there is none."""
        told = [client for client in self.all.values() if client.context == nursery.context_id]
        for client in told:
            client.peer.send(frames.Refused(0, "GuardMissing", nursery.guard))
        return bool(told)

    def gone(self, client: Client) -> None:
        """The work of a client that has left goes on; its results are kept in the file."""
        self.all.pop(client.peer.fd, None)
        for batch in client.batches:
            batch.owner = None
        for heir, ids in client.heirs:
            if self.all.get(heir.peer.fd) is heir:
                self.take_over(heir, ids)
        for run in self._ledger.runs.values():
            if run.watchers is not None:
                run.watchers.discard(client.peer)

    def leave_nobody(self) -> bool:
        """Whether an engine's own supervisor stops, now that a client has left.

        One without workers does not stay for those that have come meanwhile: it only takes work down, and they bring up
        one that does the work.
        """
        return self._sup.options.ephemeral and not (self.all and self._sup.options.workers)

    def _define(self, client: Client, message: frames.Define) -> None:
        client.functions[message.number] = self._ledger.function(message, client.context)

    def _lease(self, client: Client, _message: frames.Lease) -> None:
        self.answer(client, frames.Leased(*self._lease_to(client)))

    def admit(self, client: Client, id: int) -> None:
        """Takes note of an id that a client says, and that may be of a lease of another supervisor, or connection.

        One id is one thing, whoever says it, so whoever else has it is not trusted with it unseen any more.

        Raises:
            BadFrame: It was never given out, or is a host's.
        """
        if not 0 < id < self._ledger.next_id or any(host.ids.holds(id) for host in self._sup.staff.members):
            raise BadFrame(f"the id {id}, which is not a client's to use")
        for other in self.all.values():
            if other is not client and other.ids.holds(id):
                other.ids.spend(id, id)

    def _lease_to(self, client: Client) -> tuple[int, int]:
        first, count = self._ledger.lease()
        client.ids.add(first, count)
        return first, count

    def _submit(self, client: Client, message: frames.Submit) -> None:
        rows = message.rows
        if rows and client.owns_fresh(rows):
            self.accept(client, rows, message.terms)
        elif rows:
            self._accept_unknown(client, rows, message.terms)
        self.answer(client, frames.Acked(1), eager=False)

    def accept(self, client: Client, submitted: list[tuple[int, int, bytes]], asked: list[frames.Term]) -> None:
        """New steps: into the group, and into their lanes."""
        functions, now = client.functions, self._sup.clock.now()
        group = self._committer.group
        rows: list[Row] = [(id, 1, functions[number].id, args) for id, number, args in submitted]
        group.steps += [(id, function, args, now) for id, _, function, args in rows]
        self._committer.dirty = True
        terms = {term.step: term for term in asked}
        for batch, part in self._batches(client, rows):
            group.batches.append((batch.first, batch.last))
            if terms:
                part = self._sup.terms.take(part, batch, terms)  # noqa: PLW2901 -- the others wait elsewhere
                if not part:
                    continue
            numbers = {row[2] for row in part}
            if len(numbers) == 1:
                self._queue(client, part, batch, spill=not terms)
            else:
                for stretch in stretches(part):
                    self._queue(client, stretch, batch, spill=not terms)

    def _batches(self, client: Client, rows: list[Row]) -> list[tuple[Batch, list[Row]]]:
        """Cuts rows where their ids are not consecutive; most often nowhere."""
        made: list[tuple[Batch, list[Row]]] = []
        start = 0
        for end in range(1, len(rows) + 1) if rows[-1][0] - rows[0][0] != len(rows) - 1 else [len(rows)]:
            if end == len(rows) or rows[end][0] != rows[end - 1][0] + 1:
                part = rows[start:end]
                batch = Batch(part[0][0], part[-1][0], len(part), client.peer)
                self._ledger.batches[batch.first] = batch
                client.batches.add(batch)
                made.append((batch, part))
                start = end
        return made

    def _queue(self, client: Client, rows: list[Row], batch: Batch, *, spill: bool = True) -> None:
        if not self._sup.options.workers:
            return  # this supervisor only takes down what others will do
        function = self._ledger.functions[rows[0][2]]
        lane = self._scheduler.lane(function)
        if lane is None:
            self._results.no_executor(function, rows, batch)
        else:
            self._scheduler.enqueue(lane, client.peer.fd, rows, batch, spill=spill)

    def _resubmit(self, client: Client, message: frames.Resubmit) -> None:
        if message.rows:
            self._accept_unknown(client, message.rows, message.terms)
        self.answer(client, frames.Acked(1), eager=False)

    def _accept_unknown(
        self, client: Client, submitted: list[tuple[int, int, bytes]], terms: list[frames.Term]
    ) -> None:
        """Rows that the file may have already: only those that it has not are new. One id twice is one step."""
        rows = list({row[0]: row for row in submitted}.values())
        for row in rows:
            if not client.ids.spend(row[0], row[0]):
                self.admit(client, row[0])
        if self._committer.dirty:
            self._committer.commit()
        known = self._store.known_steps([row[0] for row in rows])
        fresh = [row for row in rows if row[0] not in known]
        if fresh:
            new = {row[0] for row in fresh}
            self.accept(client, fresh, [term for term in terms if term.step in new])
        if known:
            self.take_over(client, known)

    def _adopt(self, client: Client, message: frames.Adopt) -> None:
        self.take_over(client, set(message.steps))
        for run in message.runs:
            self._watch(client, frames.Watch(run))

    def take_over(self, client: Client, ids: set[int]) -> None:
        """A client that was here before wants these results: recorded ones now, the others when they come."""
        if self._committer.dirty:
            self._committer.commit()
        recorded: list[tuple[int, int, bytes, int, int]] = [*self._store.results(sorted(ids))]
        for start in range(0, len(recorded), ADOPT_CHUNK):
            self.answer(client, frames.Results(0, recorded[start : start + ADOPT_CHUNK]))
        open_ids = sorted(ids - {row[0] for row in recorded})
        others: dict[Client, None] = {}
        for batch in self._ledger.batches.values():
            at = bisect_left(open_ids, batch.first)
            if at == len(open_ids) or open_ids[at] > batch.last:
                continue
            if batch.owner is None:
                batch.owner = client.peer
                client.batches.add(batch)
            elif batch.owner is not client.peer:
                others[self.all[batch.owner.fd]] = None
        for other in others:  # it may be the same client's old connection, whose end is not heard yet
            other.heirs.append((client, set(open_ids)))
        gone = set(open_ids) - self._store.known_steps(open_ids) if open_ids else ()
        if gone:  # it has ended and was tidied up; nobody shall wait for ever
            self.answer(client, frames.Results(0, [(id, FAILED, self._results.forgotten, 0, 0) for id in gone]))

    def _start(self, client: Client, message: frames.Start) -> None:
        self.answer(client, frames.Acked(1), eager=False)
        function = client.functions[message.function]
        run = self._ledger.by_name.get(message.name)
        if run is not None:
            id, name, fingerprint = run.id, run.function.name, run.fingerprint
        elif (recorded := self._store.find_run(message.name)) is not None:
            id, fingerprint = recorded.id, recorded.fingerprint
            name = self._ledger.functions[recorded.function].name
        else:
            self.admit(client, message.id)
            if message.id in self._ledger.runs or self._store.run_by_id(message.id) is not None:
                raise BadFrame("a run's id that is taken")
            timeout = function.options.timeout
            deadline = self._sup.clock.now() + timeout if timeout else 0
            run = self._ledger.start(
                message.id, message.name, function, message.args, message.fingerprint, None, deadline or None
            )
            self._hosts.watch_deadline(run, deadline)
            self.answer(client, frames.Started(message.ticket, message.id, True))
            return
        if id != message.id and (name != function.name or fingerprint != message.fingerprint):
            self.answer(client, frames.Clash(message.ticket, name, self._hosts.arguments(id)))
            return
        if run is not None:
            self._hosts.renew(run, function)
        self.answer(client, frames.Started(message.ticket, id, id == message.id))

    def _watch(self, client: Client, message: frames.Watch) -> None:
        run = self._ledger.runs.get(message.run)
        if run is not None and run.state == RunState.RUNNING:
            run.watchers = run.watchers if run.watchers is not None else set()
            run.watchers.add(client.peer)
        else:
            self.answer(client, self._ended(message.run, run))

    def _ended(self, id: int, run: Run | None) -> frames.Ended:
        if run is not None and run.state == RunState.BLOCKED:
            return frames.Ended(id, RunState.BLOCKED, run.reason.encode())
        if self._committer.dirty:
            self._committer.commit()
        row = self._store.run_by_id(id)
        if row is None:
            return frames.Ended(id, "", b"")
        return frames.Ended(id, row.state, row.payload or (row.reason or "").encode())

    def _find(self, client: Client, message: frames.Find) -> None:
        if self._committer.dirty:
            self._committer.commit()
        row = self._store.find_run(message.name)
        if row is None:
            self.answer(client, frames.Record(message.ticket, 0, "", "", "", 0, 0))
            return
        done, steps = self._store.run_progress(row.id)
        name = self._ledger.functions[row.function].name
        self.answer(client, frames.Record(message.ticket, row.id, name, row.state, row.reason or "", done, steps))

    def _list(self, client: Client, message: frames.ListRuns) -> None:
        if self._committer.dirty:
            self._committer.commit()
        rows = self._store.runs_before(message.before, message.states, min(message.limit, LIST_MAX))
        self.answer(client, frames.Runs(message.ticket, rows))

    def _cancel(self, client: Client, message: frames.Cancel) -> None:
        taken = withdraw(self._sup, client.peer, set(message.steps))
        self._ledger.settled([row[0] for row, _ in taken])
        payload = self._results.cancelled
        now = self._sup.clock.now()
        for row, batch in taken:
            self._committer.group.results.append((row[0], None, STATUS[CANCELLED], row[1], 0, 0, now, now, payload))
            assert batch is not None
            self._results.count_down(batch, 1)
        self._committer.dirty = self._committer.dirty or bool(taken)
        self._sup.dedups.ended([(row[0], CANCELLED, payload) for row, _ in taken])
        self.answer(client, frames.CancelDone(message.ticket, [row[0] for row, _ in taken]))

    def _unfinished(self, client: Client, ticket: int, name: str, what: str) -> Run | None:
        """The run of a name, where it has not ended; else the client is told why it can't be had."""
        try:
            return unfinished(self._sup, name, what)
        except (errors.NoSuchRun, errors.RunEnded) as error:
            self.answer(client, frames.Refused(ticket, type(error).__name__, str(error)))
            return None

    def _signal(self, client: Client, message: frames.Signal) -> None:
        if not client.owns_fresh([(message.id, 0, b"")]):
            if self._committer.dirty:
                self._committer.commit()
            if self._store.has_signal(message.id):
                self.answer(client, frames.Done(message.ticket))
                return
            self.admit(client, message.id)
        run = self._unfinished(client, message.ticket, message.run, "signalled")
        if run is not None:
            self._sup.waits.signal(run, message.id, message.name, message.payload)
            self.answer(client, frames.Done(message.ticket))

    def _cancel_run(self, client: Client, message: frames.CancelRun) -> None:
        if not client.owns_fresh([(message.id, 0, b"")]):  # it is sent again, and may have ended the run the first time
            if self._committer.dirty:
                self._committer.commit()
            row = self._store.find_run(message.run)
            if row is not None and row.state == RunState.CANCELLED:
                self.answer(client, frames.Done(message.ticket, f"run {message.run} is cancelled"))
                return
        run = self._unfinished(client, message.ticket, message.run, "cancelled")
        if run is not None:
            told = self._sup.cancels.run(run, "it was cancelled", key=message.id, now=message.now)
            self.answer(client, frames.Done(message.ticket, told))

    def _resume(self, client: Client, message: frames.Resume) -> None:
        run = self._unfinished(client, message.ticket, message.run, "resumed")
        if run is not None:
            told = f"run {run.name} goes on" if run.state == RunState.BLOCKED else f"run {run.name} is running already"
            self._hosts.renew(run, run.function)
            self.answer(client, frames.Done(message.ticket, told))

    def _census(self, client: Client, message: frames.Census) -> None:
        client.peer.send(census(self._sup, message.ticket))

    def _flush(self, client: Client, message: frames.Flush) -> None:
        self.answer(client, frames.Flushed(message.ticket))

    def _bye(self, client: Client, message: frames.Bye) -> None:
        self.gone(client)
        self.leaving.add(client.peer)
        stops = self.leave_nobody()
        self.answer(client, frames.Farewell(stops))
        if stops:
            self._sup.stop("its last client has left", now=message.now)
