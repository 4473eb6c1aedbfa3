"""Runs that are started at times.

A time fires as one group: the run's row, and the schedule's next time. The run's name is made of the schedule's id and that
time, so however often a supervisor is killed or the clock is set back, no time has two runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dq.errors import BadSchedule
from dq.executor import times
from dq.model.states import RunState
from dq.store.group import ScheduleMove

if TYPE_CHECKING:
    from dq.crew.ledger import Run
    from dq.crew.supervisor import Supervisor
    from dq.store.group import ScheduleRow

LATE = 10 * times.SECOND  # microseconds; a time that is no longer ago than this is not missed
MISSED_MAX = 1000  # missed times that are caught up with


class Schedules:
    """The schedules of the file, and what is due.

    Attributes:
        rows: by id, as they are after the next commit.
        waiting: the schedule that waits for the end of a run, by the run's name.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._ledger = supervisor.ledger
        self._committer = supervisor.committer
        self.rows: dict[str, ScheduleRow] = {}
        self.waiting: dict[str, str] = {}
        self._told: dict[str, str | None] = {}  # the run for which it was told that a schedule is held up

    def load(self) -> None:
        """Takes up what is in the file. Times that have passed meanwhile are due at once."""
        for row in self._sup.store.schedules():
            self.rows[row.id] = row
            self._arm(row)
            if row.waiting_at is not None and self._sup.options.workers:
                self._wait(row, row.waiting_at)

    def put(self, row: ScheduleRow) -> None:
        """A schedule is new or changed, and is so from here on."""
        if self._committer.dirty:
            self._committer.commit()  # of two changes in one group it would be unsaid which is the later one
        self.rows[row.id] = row
        self._committer.group.schedules.append(row)
        self._committer.dirty = True
        self._arm(row)

    def move(self, row: ScheduleRow) -> None:
        """A schedule is the same with another past or future."""
        self.rows[row.id] = row
        moved = ScheduleMove(
            row.paused, row.next_at, row.last_at, row.last_run, row.waiting_at, row.skipped, row.id
        )  # fmt: skip
        self._committer.group.schedule_moves.append(moved)
        self._committer.dirty = True

    def pause(self, row: ScheduleRow) -> None:
        """Nothing of it fires any more; what waits for its turn is dropped."""
        self.move(row._replace(paused=1, waiting_at=None))

    def resume(self, row: ScheduleRow) -> None:
        """It fires again from now on; what fell into the pause is not caught up with."""
        now = self._sup.clock.now()
        due = times.parse(row.expression, row.tz).next(row.next_at, now) if row.next_at <= now else row.next_at
        resumed = row._replace(paused=0, next_at=due)
        self.move(resumed)
        self._arm(resumed)

    def delete(self, row: ScheduleRow) -> None:
        """It is no more; the runs that it has started are not touched."""
        del self.rows[row.id]
        self._told.pop(row.id, None)
        self._committer.group.closed_schedules.append((row.id,))
        self._committer.dirty = True

    def trigger(self, row: ScheduleRow, run: int) -> str:
        """Starts a run now, whatever the time and the others; returns its name."""
        name = f"{row.id}@manual-{times.stamp(self._sup.clock.now())}"
        while self._is_taken(name):
            name += "+"
        self._start(row, run, name, None)
        self.move(row._replace(last_run=name))
        return name

    def ended(self, run: Run) -> None:
        """A run has ended for which a schedule waits."""
        id = self.waiting.get(run.name)
        if id is not None and not self._sup.stopping:
            del self.waiting[run.name]
            self._release(id)

    def _arm(self, row: ScheduleRow) -> None:
        """A supervisor without workers only takes down what others will do."""
        if self._sup.options.workers and not row.paused:
            id, due = row.id, row.next_at
            self._sup.alarms.at(due, lambda: self._due(id, due))

    def _due(self, id: str, due: int) -> None:
        row = self.rows.get(id)
        if row is None or row.paused or row.next_at != due or self._sup.stopping:
            return
        now = self._sup.clock.now()
        try:
            plan = times.parse(row.expression, row.tz)
            fired, more = plan.latest(due, now, MISSED_MAX if row.catch_up == "all" else 1)
            row = row._replace(next_at=plan.next(due, now))
        except BadSchedule as error:  # what one machine has said another may not understand
            self._sup.notice(f"schedule {id} is paused: {error}. When that is put right: dq schedules resume {id}")
            self.pause(row)
            return
        if row.catch_up == "skip" and now - fired[-1] > LATE:
            fired = []
        elif more and row.catch_up == "all":
            self._sup.notice(
                f"schedule {id} has missed more than {MISSED_MAX} times; the last {MISSED_MAX} of them start now"
            )
        for at in fired:
            row = self._fire(row, at)
        self.move(row)
        self._arm(row)

    def _fire(self, row: ScheduleRow, at: int) -> ScheduleRow:
        """One time has come."""
        if row.overlap == "allow" or not self._is_unfinished(row.last_run):
            return self._begin(row, at)
        if row.overlap == "queue" and row.waiting_at is None:
            self._wait(row, at)
            return row._replace(waiting_at=at)
        if self._told.get(row.id) != row.last_run:
            self._told[row.id] = row.last_run
            self._sup.notice(
                f"schedule {row.id}: {times.stamp(at)} is skipped, and so is what follows, until run {row.last_run} has ended"
            )
        return row._replace(skipped=row.skipped + 1)

    def _begin(self, row: ScheduleRow, at: int) -> ScheduleRow:
        """Starts the run of a time, unless it was started before."""
        name = f"{row.id}@{times.stamp(at)}"
        if not self._is_taken(name):
            self._start(row, self._ledger.take(1), name, at)
        return row._replace(last_at=at, last_run=name)

    def _start(self, row: ScheduleRow, id: int, name: str, at: int | None) -> None:
        function = self._ledger.functions[row.function]
        timeout = function.options.timeout
        deadline = self._sup.clock.now() + timeout if timeout else None
        run = self._ledger.start(id, name, function, row.args, row.fingerprint, None, deadline, at)
        self._sup.hosts.watch_deadline(run, deadline or 0)

    def _wait(self, row: ScheduleRow, at: int) -> None:
        """The run of a time is started when the one before it has ended."""
        id = row.id
        if row.last_run is not None and self._is_unfinished(row.last_run):
            self.waiting[row.last_run] = id
        else:
            self._sup.alarms.at(at, lambda: self._release(id))

    def _release(self, id: str) -> None:
        row = self.rows.get(id)
        if row is not None and row.waiting_at is not None and not self._sup.stopping:
            self.move(self._begin(row._replace(waiting_at=None), row.waiting_at))

    def _is_unfinished(self, name: str | None) -> bool:
        run = self._ledger.by_name.get(name) if name is not None else None
        return run is not None and run.state in (RunState.RUNNING, RunState.BLOCKED)

    def _is_taken(self, name: str) -> bool:
        return name in self._ledger.by_name or self._sup.store.find_run(name) is not None
