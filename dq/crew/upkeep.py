"""Retention: what ended long ago is taken out of the file, and side files that nobody refers to are unlinked.

All of it goes in slices of two milliseconds between the turns of the loop. The order is what a kill at any point rests on: rows
are deleted, then that is made durable, then the files are looked for that no row names, then they are unlinked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from dq.crew.chores import SLICE, Chores
from dq.crew.janitor import SideFile, Task
from dq.crew.letters import Letters
from dq.errors import DamagedPayload, DiskFull
from dq.executor import blobs, frames
from dq.model.payload import unseal
from dq.store.purges import RUN, SIGNAL, STEP, Age, Kind

if TYPE_CHECKING:
    from dq.crew.clients import Client, Clients
    from dq.crew.supervisor import Supervisor

EVERY = 3600.0  # seconds between two passes of the policy
FIRST = 60.0  # seconds from the start to the first one
# Seconds that clients of an earlier supervisor have to come back. They send again what they have no answer to, and a step or a
# run that is on record is not done again: so what has just ended stays that long, however short it is to be kept.
COME_BACK = 60.0
LEAP = 3600.0  # seconds by which the clock may be set while dq trusts it


class Wish(NamedTuple):
    """What is to be tidied up."""

    older_than: int  # microseconds since its end
    keep_failed: bool = False
    dry_run: bool = False


class Tally:
    """What was taken away, or would be."""

    def __init__(self) -> None:
        self.runs = self.steps = self.signals = self.files = self.size = 0
        self.named: set[str] = set()  # side files of rows that are deleted
        self.held = False  # whether a copy is being made, so that side files stay for the next time
        self.trouble = ""


class Upkeep:
    """Tidies up, when somebody asks and by the policy that the supervisor was started with."""

    def __init__(self, supervisor: Supervisor, clients: Clients) -> None:
        self._sup = supervisor
        self._clients = clients
        self._store = supervisor.store
        self._committer = supervisor.committer
        self._folder = supervisor.options.db + ".blobs"
        self._born = supervisor.clock.monotonic()
        self._offset = _offset(supervisor.clock.now())
        self.chores = Chores(supervisor.clock, supervisor.timers, lambda: supervisor.scheduler.claimed > 0)
        letters = Letters(supervisor, clients, self.chores)
        self.handlers: dict[type, Callable[[Client, Any], None]] = {frames.Sweep: self._asked, **letters.handlers}
        if supervisor.options.keep:
            supervisor.timers.at(self._born + FIRST, self._by_policy)

    def _by_policy(self) -> None:
        """A pass of its own accord. Not where the clock has made a leap: then nobody knows how old anything is."""
        if abs(_offset(self._sup.clock.now()) - self._offset) < LEAP:
            self.chores.add(self.sweep(Wish(int(self._sup.options.keep * 1e6)), Tally()))
        else:
            self._sup.notice(
                f"the system's clock was set by more than {LEAP:g} s since the start, so nothing is deleted by its age. Where "
                "it is right now, start again: then what has ended is as old as the clock says."
            )
        self._sup.timers.at(self._sup.clock.monotonic() + EVERY, self._by_policy)

    def _asked(self, client: Client, message: frames.Sweep) -> None:
        self.chores.add(self._answer(client, message))

    def _answer(self, client: Client, message: frames.Sweep) -> Iterator[None]:
        tally = Tally()
        yield from self.sweep(Wish(message.older_than, message.keep_failed, message.dry_run), tally)
        if tally.trouble:
            self._clients.answer(client, frames.Refused(message.ticket, "DiskFull", tally.trouble))
        else:
            told = (tally.runs, tally.steps, tally.signals, tally.files, tally.size, tally.held)
            self._clients.answer(client, frames.Swept(message.ticket, *told))

    def sweep(self, wish: Wish, tally: Tally) -> Iterator[None]:
        """Does what is wished and counts it; each item is the end of a slice."""
        now = self._sup.clock.now()
        span = wish.older_than
        if self._sup.clock.monotonic() - self._born < COME_BACK:
            span = max(span, int(COME_BACK * 1e6))
        age = Age(now - span, wish.keep_failed, now)
        try:
            yield from self._runs(age, wish, tally)
            yield from self._steps(age, wish, tally)
            if not wish.dry_run:
                yield from self._signals(tally)
                yield from self._sync()
        except DiskFull as error:
            tally.trouble = f"{error} What was to be tidied up stays for the next time."
            self._sup.notice(tally.trouble)
            return
        yield from self._files(wish, tally)

    def _runs(self, age: Age, wish: Wish, tally: Tally) -> Iterator[None]:
        for page in self._store.old_runs(age):
            ids = [id for id, parent in page if not self._is_wanted(parent)]
            if wish.dry_run:
                tally.runs += len(ids)
                for id in ids:
                    tally.steps += self._store.count_steps(id)
                    yield
            else:
                yield from self._purge(RUN, ids, tally)
                tally.runs += len(ids)
            yield

    def _is_wanted(self, parent: int) -> bool:
        """Whether somebody above in the tree of runs has not ended: the whole tree stays as long."""
        while parent:
            if parent in self._sup.ledger.runs:
                return True
            parent = self._store.parent(parent)
        return False

    def _steps(self, age: Age, wish: Wish, tally: Tally) -> Iterator[None]:
        for ids in self._store.old_steps(age):
            if not wish.dry_run:
                yield from self._purge(STEP, ids, tally)
            tally.steps += len(ids)
            yield

    def _signals(self, tally: Tally) -> Iterator[None]:
        for ids in self._store.stray_signals():
            yield from self._purge(SIGNAL, ids, tally)
            tally.signals += len(ids)
            yield

    def _purge(self, kind: Kind, ids: list[int], tally: Tally) -> Iterator[None]:
        if ids:
            tally.named.update(name_in(payload) for payload in self._store.files_of(kind, ids))
        while ids:
            if self._committer.dirty:
                self._committer.commit()  # it may copy what is about to go
            ids = ids[self._store.purge(kind, ids, SLICE) :]
            yield

    def _sync(self) -> Iterator[None]:
        """Waits until what was deleted is durable: else a power cut could bring rows back whose files are gone."""
        committer = self._committer
        committer.dirty = committer.eager = True
        wanted = committer.next_sync()
        while committer.syncs < wanted:
            yield

    def _files(self, wish: Wish, tally: Tally) -> Iterator[None]:
        listing = Task(self._folder).look(tally.named)
        while not listing.done:
            yield
        if self._committer.dirty:
            self._committer.commit()  # a result that has come counts from here on
        due = {file.name: file for file in listing.found if file.name in tally.named or not self._is_pending(file)}
        if due:
            yield from self._drop_named(due)
        files = list(due.values())
        if not wish.dry_run and files:
            unlinking = Task(self._folder).unlink(files)
            while not unlinking.done:
                yield
            files, tally.held = unlinking.found, unlinking.held
        tally.files += len(files)
        tally.size += sum(file.size for file in files)

    def _drop_named(self, due: dict[str, SideFile]) -> Iterator[None]:
        """Takes those out that a row names."""
        for payloads in self._store.payloads_aside():
            for payload in payloads:
                due.pop(name_in(payload), None)
            yield

    def _is_pending(self, file: SideFile) -> bool:
        """Whether somebody is at work who may still name this file in a row."""
        if file.epoch:
            return any(file.epoch in member.claims for member in self._sup.staff.members)
        if file.owner in self._sup.ledger.runs or file.owner in self._sup.ledger.flow:
            return True
        return any(client.ids.holds(file.owner) for client in self._clients.all.values())


def _offset(now: int) -> float:
    """Seconds between the system's clock (microseconds UTC) and one that nobody sets and that counts sleep."""
    return now / 1e6 - time.clock_gettime(time.CLOCK_BOOTTIME)


def name_in(payload: bytes) -> str:
    """The side file that a payload names, "" where it is damaged."""
    try:
        return blobs.reference(bytes(unseal(payload)[1])).name
    except DamagedPayload:
        return ""
