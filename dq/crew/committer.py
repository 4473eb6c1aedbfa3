"""Group commit: one transaction and one sync for all that arrived since the last one.

The order is the promise: write, COMMIT, then send what may run (its row is in the WAL), then sync, then tell whoever
waits. Nothing in `after_sync` leaves before a sync has returned that began after the COMMIT of its group.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dq import errors
from dq.store.group import Group

if TYPE_CHECKING:
    from dq.crew.peer import Peer
    from dq.executor.frames import Message
    from dq.model.clock import Clock
    from dq.store.guard import Statement
    from dq.store.store import Store

LAZY = 0.002  # seconds that a mere acknowledgement waits for a result to share its sync
CLOSED_MAX = 256
ROOM_WAIT = 0.2  # seconds between two tries while the disk is full
INLINE_MAX = 0.0004  # seconds; a slower sync runs in the thread while the next group collects

Mail = list[tuple["Peer", "bytes | Message"]]


class Committer:
    """Collects what one turn of the loop decides, and puts it down.

    Attributes:
        group: what the next transaction writes.
        after_commit: what is sent once the group is in the WAL: claims.
        after_sync: what is sent once it is on disk: results, acknowledgements.
        eager: whether somebody waits for this group's sync; else it may take up to LAZY seconds.
    """

    def __init__(self, store: Store, notice: Callable[[str], None], clock: Clock) -> None:
        self._store = store
        self._notice = notice
        self._clock = clock
        self.group = Group()
        self.dirty = False
        self.eager = False
        self.after_commit: Mail = []
        self.after_sync: Mail = []
        self.overlaps: Callable[[], bool] = bool  # whether anything goes on that a sync in the loop would hold up
        self.wait: Callable[[float], bool] = _sleep  # for room on the disk; False where somebody wants an end of it
        self.then: list[Callable[[], None]] = []
        self._waiting: Mail = []  # committed, not synced
        self._unsynced = False
        self._deadline = 0.0
        self._cost = 0.0001  # seconds a sync takes, averaged
        self._thread = _SyncThread(store)
        self.wake_fd = self._thread.wake_fd
        self._in_flight: Mail | None = None
        self._tidying = False
        self._deciding = False  # whether a group is made inside of the transaction that writes it
        self._closed: list[tuple[int]] = []  # claims to delete; that waits until the claims' page is written anyway
        self.commits = 0
        self.syncs = 0

    def commit(self) -> None:
        """Writes the group, sends what may go, and syncs if somebody waits for it."""
        if self._deciding:
            return  # what would be written first is written, and this group has a transaction already
        self._put_down()
        if self._in_flight is not None:
            return
        if not self._waiting and not self._unsynced:
            return
        if self.eager or self._clock.monotonic() >= self._deadline:
            self._sync()

    def commit_effects(self, statements: Sequence[Statement], decide: Callable[[], None]) -> None:
        """Commits what is there, then the statements of a body together with what `decide` puts into the group.

        A statement that fails takes nobody along, so they have a transaction of their own; they share the sync of what
        else is committed.

        Raises:
            EffectFailed: Nothing of it is written, and nothing was decided.
        """
        self._put_down()
        made: list[Group] = []

        def group() -> Group:
            if not made:
                self._deciding = True
                try:
                    decide()
                finally:
                    self._deciding = False
                made.append(self._cut())
            return made[0]

        self._patiently(lambda: self._store.commit_effects(statements, group))
        self._written()
        self._send_off()

    def _put_down(self) -> None:
        """Writes the group and sends what may go."""
        if self.dirty:
            self._write()
        self._send_off()

    def _write(self) -> None:
        group = self._cut()
        self._patiently(lambda: self._store.commit(group))
        self._written()

    def _send_off(self) -> None:
        """What waits for a COMMIT goes; what waits for a sync waits on."""
        if self.after_commit:
            _send(self.after_commit)
        if self.then:
            for action in self.then:
                action()
            self.then.clear()
        if self.after_sync:
            if not self._waiting:
                self._deadline = self._clock.monotonic() + LAZY
            self._waiting += self.after_sync
            self.after_sync.clear()

    def _cut(self) -> Group:
        """Takes the group that is to be written."""
        group, self.group, self.dirty = self.group, Group(), False
        self._closed += group.closed_claims
        group.closed_claims = []
        if group.claims or self._tidying or len(self._closed) >= CLOSED_MAX:
            group.closed_claims, self._closed = self._closed, []
            self._tidying = False
        return group

    def _written(self) -> None:
        self.commits += 1
        if not self._unsynced:
            self._unsynced = True
            self._deadline = self._clock.monotonic() + LAZY

    def _patiently(self, write: Callable[[], None]) -> None:
        """A full disk stops the clock, not the work: the same group is written when there is room again.

        Raises StoreError; DiskFull if the supervisor is told to stop meanwhile.
        """
        told = False
        while True:
            try:
                write()
            except errors.DiskFull as error:
                if not told:
                    self._notice(
                        f"{error} dq keeps in memory what is to be written and tries again until there is room."
                    )
                    told = True
                if not self.wait(ROOM_WAIT):
                    raise
            else:
                if told:
                    self._notice("There is room on the disk again; dq goes on.")
                return

    def _sync(self) -> None:
        mail, self._waiting = self._waiting, []
        self.eager = False
        if not self._unsynced:
            _send(mail)
            return
        self._unsynced = False
        if self._cost > INLINE_MAX and self.overlaps():
            self._in_flight = mail
            self._thread.start()
            return
        self._done(self._store.sync())
        _send(mail)

    def synced(self) -> None:
        """The thread has finished its sync."""
        seconds = self._thread.finish()
        if seconds is not None and self._in_flight is not None:
            mail, self._in_flight = self._in_flight, None
            self._done(seconds)
            _send(mail)

    def _done(self, seconds: float) -> None:
        self._cost += (seconds - self._cost) * 0.125
        self.syncs += 1

    def next_sync(self) -> int:
        """What `syncs` will be, at the least, when everything that is committed now is durable."""
        return self.syncs + (1 if self._in_flight is None else 2)

    def tidy(self) -> None:
        """Deletes claims that are over, in an idle moment."""
        self._tidying = bool(self._closed or self.group.closed_claims)
        self.dirty = self.dirty or self._tidying

    def settle(self) -> None:
        """Commits, syncs and sends all there is, however long it takes."""
        self.eager = True
        self.tidy()
        while self.dirty or self.after_sync or self._waiting or self._unsynced or self._in_flight is not None:
            if self._in_flight is not None:
                self._thread.wait()
                self.synced()
            self.eager = True
            self.commit()

    @property
    def cost(self) -> float:
        """Seconds that a sync takes, averaged."""
        return self._cost

    def timeout(self) -> float | None:
        """Seconds until something must be synced, None if nothing waits."""
        if self._in_flight is not None or not (self._waiting or self._unsynced):
            return None
        return 0.0 if self.eager else max(0.0, self._deadline - self._clock.monotonic())


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def _send(mail: Mail) -> None:
    for peer, message in mail:
        if isinstance(message, bytes):
            peer.write(message)
        else:
            peer.send(message)
    mail.clear()


class _SyncThread:
    """One sync at a time, beside the loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._go = threading.Semaphore(0)
        self._finished = threading.Event()
        self._seconds = 0.0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dq-sync", daemon=True)
            self._thread.start()
        self._finished.clear()
        self._go.release()

    def _run(self) -> None:
        while True:
            self._go.acquire()
            try:
                self._seconds = self._store.sync()
            except BaseException as error:  # noqa: BLE001 -- raised again in the loop
                self._error = error
            self._finished.set()
            os.eventfd_write(self.wake_fd, 1)

    def wait(self) -> None:
        self._finished.wait()

    def finish(self) -> float | None:
        """Seconds that the sync took; None while it runs, since the wake may be of the one before."""
        try:
            os.eventfd_read(self.wake_fd)
        except BlockingIOError:
            pass
        if not self._finished.is_set():
            return None
        if self._error is not None:
            raise self._error
        return self._seconds
