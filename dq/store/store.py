"""The single writer: one transaction for a group of decisions, and one sync for as many groups as you like."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import apsw

from dq.errors import DiskFull, Fenced, StoreError
from dq.model.clock import Clock, SystemClock
from dq.model.states import RUN_TRANSITIONS, RunState
from dq.store import bulk, connection, faults
from dq.store.group import ForkRow, Group
from dq.store.guard import Guard, Statement
from dq.store.purges import Purges
from dq.store.sql import SQL
from dq.store.sync import Wal
from dq.store.transaction import transaction

LOG_SIZE = 20 << 20  # bytes that the log is grown to ahead of need
ROOM_MIN = 8 * LOG_SIZE  # bytes that must be free for that
CHECKPOINT_PAGES = 4000  # about 16 MB, so that the log stays within its grown part
CHECKPOINT_STEP = 1024  # pages between tries while a reader keeps the log from being emptied
LOG_HEAD, FRAME_HEAD = 32, 24  # bytes of the log's header, and of the header of each page in it
UNBOOTED = -1


class Boot(NamedTuple):
    """What a supervisor learns as it takes the file over."""

    epoch: int  # its own; above that of every predecessor
    unclean: bool  # the predecessor was killed
    machine_changed: bool  # the machine was restarted since, or it is another one


class Store(Purges):
    """The file, open for writing. One process, one thread; only `sync` may run in another thread.

    Example:
        store = Store.open("movie.db")
        store.boot(boot_id)
        store.commit(group)   # visible to readers, and safe from any kill of a process
        store.sync()          # safe from a power cut; acknowledge only now
        store.close(clean=True)
    """

    def __init__(self, opened: apsw.Connection, path: str) -> None:
        self._opened = opened
        self._path = path
        self._wal = Wal(opened, path)
        self.guard = Guard(opened)
        self._pid = os.getpid()
        self._epoch = UNBOOTED
        self._broken = ""
        self._closed = False
        self._pages = 0
        self._checkpoint_at = CHECKPOINT_PAGES
        opened.set_wal_hook(self._committed)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, create: bool = True, clock: Clock | None = None, vfs: str | None = None
    ) -> Store:
        """Opens the file, makes it first (mode 0600) if there is none. `vfs` names a storage known to SQLite, None the usual.

        Raises NoSuchFolder, ReadOnlyFile, DiskFull, NotADatabase, ForeignDatabase, NewerSchema, CorruptDatabase,
        UnsafePlace, or StoreError where `create` is false and there is no file.
        """
        place = connection.absolute(path)
        opened = connection.open_writer(place, create=create, now=(clock or SystemClock()).now(), vfs=vfs)
        try:
            with faults.explained(place):
                opened.execute(SQL["engine"]).fetchall()  # SQLite opens the log at the first read
                return cls(opened, place)
        except BaseException:
            opened.close()
            raise

    def boot(self, boot_id: str) -> Boot:
        """Takes the file over: from here on every other Store that is open on it is fenced.

        `boot_id` names the machine's boot. What a killed predecessor committed without a sync is made durable before
        anything else, so that no result is served that a power cut could still take back. Raises StoreError.
        """
        self._renew_log()
        self.sync()
        epoch, last_boot_id, clean, *_ = self.engine_row()
        try:
            self._change_engine("boot", boot_id, epoch)
        except apsw.Error as error:
            raise self._failed(error) from error
        self._epoch = epoch + 1
        self.sync()
        return Boot(self._epoch, not clean, bool(last_boot_id) and last_boot_id != boot_id)

    def _renew_log(self) -> None:
        """Has all of the log synced anew, in case a predecessor's sync has failed.

        After that the kernel takes pages for written which are not: it would show them, and sync nothing. A log that a reader
        has made longer than it should be is left as it is, since a start must not take seconds.
        """
        db = self._connected()
        try:
            pages, _ = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            size = pages * (int(str(db.pragma("page_size"))) + FRAME_HEAD) + LOG_HEAD
            if pages <= 0 or size > connection.LOG_LIMIT:
                return
            with transaction(db):  # so that nobody else writes to the log
                self._wal.renew(size)
        except apsw.Error as error:
            raise self._failed(error) from error
        except StoreError as error:
            self._broken = str(error)
            raise

    def commit(self, group: Group) -> None:
        """Writes all of the group or nothing. Visible and safe from kills when it returns; durable after `sync`.

        Raises:
            Fenced: another supervisor has taken the file over, a row was there already, or a compared state differs.
            DiskFull: nothing is written, and the same group may be tried again later.
            StoreError: the disk failed; only a new Store can tell what is in the file.
        """
        self.commit_effects((), lambda: group)

    def commit_effects(self, statements: Sequence[Statement], decide: Callable[[], Group]) -> None:
        """Runs users' statements and writes, in the same transaction, the group that `decide` then makes.

        Nothing is decided unless every statement has done what it should. `decide` may be asked again after DiskFull.

        Raises:
            EffectFailed: a statement can't be done. Nothing is written, and `decide` was not asked.
            Fenced, DiskFull, StoreError: as above.
        """
        db = self._connected()
        try:
            with transaction(db):
                if statements:
                    self.guard.run(statements)
                group = decide()
                before = db.total_changes()  # what users' statements have changed is theirs to count
                expected = self._write(db, group)
                if db.total_changes() - before != expected:
                    raise self._fenced("a row that should be changed is not as expected")
        except apsw.ConstraintError as error:
            raise self._fenced(f"a row is there already or breaks a rule ({error})") from error
        except apsw.Error as error:
            raise self._failed(error) from error
        self._look_at_log()

    def _look_at_log(self) -> None:
        if self._pages >= self._checkpoint_at:
            self.checkpoint()

    def _write(self, db: apsw.Connection, group: Group) -> int:
        """Runs the statements and returns how many rows they must have changed.

        None of them can change more than one row for one row of the group, so the sum tells if each did.
        """
        # A look is enough: the transaction holds the write lock, so nobody can take the file over before it ends.
        if db.execute(SQL["fence"], (self._epoch,)).get is None:
            raise self._fenced("another supervisor has taken the file over")
        expected = 0
        if group.lease_to:
            db.execute(SQL["lease"], (group.lease_to, self._epoch))
            expected = 1
        for name, rows in _statements(group):
            if rows:
                bulk.insert(db, name, rows)
                expected += len(rows)
        for fork in group.forks:
            expected += self._fork(db, fork)
        self._check_epochs(db, group)
        for name, rows in _closings(group):
            if rows:
                db.executemany(SQL[name], rows)
                expected += len(rows)
        return expected

    def _fork(self, db: apsw.Connection, fork: ForkRow) -> int:
        """Copies a part of a run's record to another run; returns how many rows that has changed."""
        before = db.total_changes()
        db.execute(SQL["fork_steps"], fork[:6])
        if db.changes() != fork.copied:
            raise self._fenced(f"a fork should copy {fork.copied} steps, and there are {db.changes()}")
        db.execute(SQL["fork_results"], fork[:6])
        db.execute(SQL["fork_terms"], fork[:6])
        db.execute(SQL["fork_signals"], fork[:7])
        db.execute(SQL["set_fork"], (*fork[:3], None, None, None, None, fork.origin, fork.checkpoint))
        return db.total_changes() - before

    def _check_epochs(self, db: apsw.Connection, group: Group) -> None:
        """A result counts only under a claim that is open. Epoch 0 stands for a step that ended unclaimed."""
        epochs = {row[4] for row in group.results}
        epochs.discard(0)
        # Closing a claim proves that it was open.
        epochs.difference_update(row[0] for row in group.closed_claims)
        for epoch in epochs:
            if db.execute(SQL["claim_is_open"], (epoch,)).get is None:
                raise self._fenced(f"a result came under the claim {epoch}, which is not open")

    def sync(self) -> float:
        """Makes everything committed before this call durable; returns the seconds it took. Any thread.

        Raises StoreError, and from then on every call does: only a new Store can tell what is really on disk.
        """
        self._connected()
        try:
            return self._wal.sync()
        except StoreError as error:
            self._broken = str(error)
            raise

    def checkpoint(self) -> None:
        """Copies the log's pages into the database as far as readers allow; never waits for them.

        Raises StoreError when a sync fails; a full disk is none, the log just stays longer.
        """
        db = self._connected()
        try:
            pages, copied = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.FullError, apsw.BusyError):
            pages, copied = self._pages, -1
        except apsw.Error as error:
            raise self._failed(error) from error
        emptied = pages == copied
        self._pages = 0 if emptied else self._pages
        self._checkpoint_at = CHECKPOINT_PAGES if emptied else max(CHECKPOINT_PAGES, pages + CHECKPOINT_STEP)

    def pregrow(self) -> bool:
        """Grows the log to about 20 MB, once, so that later commits and syncs are quicker. For an idle moment.

        Returns whether it did something. A disk with little room is left alone: users need it more. Raises StoreError.
        """
        self._connected()
        try:
            if self._wal.size() >= LOG_SIZE or faults.room(os.path.dirname(self._path)) < ROOM_MIN:
                return False
            grown = self._wal.grow(LOG_SIZE)
        except StoreError as error:
            self._broken = str(error)
            raise
        self.sync()
        return grown

    def close(self, clean: bool) -> None:
        """Closes the file. `clean` says that no claim is left to a worker that might still run.

        A second call does nothing. Raises StoreError, or Fenced where a successor is at work.
        """
        self._check_pid()
        if self._closed:
            return
        try:
            if clean and not self._broken:
                self._close_clean()
        finally:
            self._closed = True
            with faults.explained(self._path):
                self._opened.close()

    def suspect(self, error: BaseException) -> None:
        """Raises CorruptDatabase where an error that nobody has foreseen comes from damaged pages."""
        connection.suspect(self._connected(), self._path, error)

    def _close_clean(self) -> None:
        db = self._connected()
        try:
            if self._epoch != UNBOOTED:
                self._change_engine("mark_clean", self._epoch)
            self.sync()
            try:
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except (apsw.BusyError, apsw.FullError):
                return  # a reader is there, or no room: the log stays, and is durable
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        except apsw.Error as error:
            raise self._failed(error) from error

    def _change_engine(self, name: str, *values: int | str) -> None:
        with transaction(self._opened):
            self._opened.execute(SQL[name], values)
            if self._opened.changes() != 1:
                raise self._fenced("another supervisor has taken the file over")

    def _committed(self, db: apsw.Connection, name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def _connected(self) -> apsw.Connection:
        self._check_pid()
        if self._closed:
            raise StoreError(f"{self._path} is closed.")
        if self._broken:
            raise StoreError(self._broken)
        return self._opened

    def _check_pid(self) -> None:
        # A connection that crosses a fork destroys commits, so a copy of the process must never touch it.
        if os.getpid() != self._pid:
            raise StoreError(
                f"{self._path} was opened by process {self._pid}; process {os.getpid()} must open its own."
            )

    def _failed(self, error: apsw.Error) -> StoreError:
        explained = faults.explain(error, self._path)
        if not isinstance(explained, DiskFull):
            self._broken = str(explained)
        return explained

    def _fenced(self, why: str) -> Fenced:
        return Fenced(f"{self._path}: {why}. Nothing of this group is written.")


def _statements(group: Group) -> tuple[tuple[str, Sequence[tuple[Any, ...]]], ...]:
    return (
        ("insert_context", group.contexts),
        ("insert_function", group.functions),
        ("insert_run", group.runs),
        ("insert_batch", group.batches),
        ("insert_step", group.steps),
        ("insert_flow_step", group.flow_steps),
        ("upsert_term", group.terms),
        ("set_same_as", group.same_as),
        ("upsert_queue", group.queues),
        ("delete_begin", group.ended_begins),
        ("upsert_begin", group.begins),
        ("upsert_due", group.dues),
        ("insert_signal", group.signals),
        ("take_signal", group.taken_signals),
        ("upsert_schedule", group.schedules),
        ("move_schedule", group.schedule_moves),
        ("upsert_progress", group.progress),
        ("insert_claim", group.claims),
        ("trim_claim", group.trimmed_claims),
        ("insert_result", group.results),
        ("insert_attempt", group.attempts),
        ("insert_letter", group.letters),
    )


def _closings(group: Group) -> tuple[tuple[str, Sequence[tuple[Any, ...]]], ...]:
    for change in group.run_changes:
        if RunState(change.state) not in RUN_TRANSITIONS[RunState(change.expected)]:
            raise ValueError(f"run {change.id} can't go from {change.expected} to {change.state}")
    return (
        ("delete_claim", group.closed_claims),
        ("delete_batch", group.closed_batches),
        ("delete_progress", group.closed_progress),
        ("delete_schedule", group.closed_schedules),
        ("cancel_run", group.cancels),
        ("condemn_run", group.condemned),
        ("set_checkpoint", group.checkpoints),
        ("change_run", group.run_changes),
    )
