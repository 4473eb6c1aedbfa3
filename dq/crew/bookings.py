"""What clients ask of schedules."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from dq.errors import BadSchedule
from dq.executor import frames, times
from dq.executor.frames import BadFrame
from dq.model.payload import FILE
from dq.store.group import ScheduleRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from dq.crew.clients import Client, Clients
    from dq.crew.ledger import Function
    from dq.crew.supervisor import Supervisor


class Bookings:
    """Answers clients. All that they ask may come twice, after a reconnect: the schedule's id says what is meant."""

    def __init__(self, supervisor: Supervisor, clients: Clients) -> None:
        self._sup = supervisor
        self._clients = clients
        self._ledger = supervisor.ledger
        self._schedules = supervisor.schedules
        self.handlers: dict[type, Callable[[Client, Any], None]] = {
            frames.Book: self._book, frames.ListPlans: self._list, frames.Replan: self._replan,
            frames.Trigger: self._trigger,
        }  # fmt: skip

    def _book(self, client: Client, message: frames.Book) -> None:
        function = client.functions[message.function]
        if function.kind != "workflow" or message.args[:1] == FILE:
            raise BadFrame("a schedule of a step, or with arguments in a file of their own")
        known = self._schedules.rows.get(message.id)
        try:
            plan = times.check(message.expression, message.tz, message.catch_up, message.overlap)
            row = self._row(message, function, plan, known)
        except BadSchedule as error:
            self._clients.answer(client, frames.Refused(message.ticket, "BadSchedule", str(error)))
            return
        if known is not None and self._ledger.functions[known.function].name != function.name:
            self._clients.answer(
                client, frames.Refused(message.ticket, "ScheduleConflict", self._clash(known, function))
            )
            return
        if row != known:
            self._schedules.put(row)
        self._clients.answer(client, frames.Plans(message.ticket, [self._told(row)]))

    def _row(self, asked: frames.Book, function: Function, plan: times.Times, known: ScheduleRow | None) -> ScheduleRow:
        """The schedule as it is from now on. One that is known keeps its past, and its next time unless that changes."""
        now = self._sup.clock.now()
        if known is None:
            return ScheduleRow(
                asked.id, function.id, asked.args, asked.fingerprint, asked.expression, asked.tz, asked.catch_up,
                asked.overlap, 0, plan.first(now), None, None, None, 0, now,
            )  # fmt: skip
        due = known.next_at
        if (known.expression, known.tz) != (asked.expression, asked.tz):
            due = plan.first(max(now, known.last_at or 0))
        return known._replace(
            function=function.id, args=asked.args, fingerprint=asked.fingerprint, expression=asked.expression, tz=asked.tz,
            catch_up=asked.catch_up, overlap=asked.overlap, next_at=due,
        )  # fmt: skip

    def _clash(self, known: ScheduleRow, function: Function) -> str:
        name = self._ledger.functions[known.function].name
        return (
            f"schedule {known.id!r} starts {name}, and this one would start {function.name}. Give it an id of its own, "
            f"id=..., or delete the other one first: dq schedules delete {shlex.quote(known.id)} --db {self._db}"
        )

    def _list(self, client: Client, message: frames.ListPlans) -> None:
        rows = sorted(self._schedules.rows.values())
        self._clients.answer(client, frames.Plans(message.ticket, [self._told(row) for row in rows]))

    def _replan(self, client: Client, message: frames.Replan) -> None:
        row = self._schedules.rows.get(message.id)
        if row is None:
            if message.what == "delete":  # clients have looked that it is there, so this is the same wish again
                self._clients.answer(client, frames.Done(message.ticket))
            else:
                self._refuse(client, message.ticket, message.id)
            return
        match message.what:
            case "pause":
                if not row.paused:
                    self._schedules.pause(row)
            case "resume":
                if row.paused and not self._resume(client, message.ticket, row):
                    return
            case "delete":
                self._schedules.delete(row)
            case _:
                raise BadFrame(f"nothing that can be done to a schedule: {message.what}")
        self._clients.answer(client, frames.Done(message.ticket))

    def _resume(self, client: Client, ticket: int, row: ScheduleRow) -> bool:
        try:
            self._schedules.resume(row)
        except BadSchedule as error:
            self._clients.answer(client, frames.Refused(ticket, "BadSchedule", str(error)))
            return False
        return True

    def _trigger(self, client: Client, message: frames.Trigger) -> None:
        name = self._started(client, message.run)
        if not name:
            row = self._schedules.rows.get(message.id)
            if row is None:
                self._refuse(client, message.ticket, message.id)
                return
            name = self._schedules.trigger(row, message.run)
        self._clients.answer(client, frames.Done(message.ticket, name))

    def _started(self, client: Client, id: int) -> str:
        """The name of the run of that id, where the wish for it has come before."""
        run = self._ledger.runs.get(id)
        if run is not None:
            return run.name
        self._clients.admit(client, id)
        if self._sup.committer.dirty:
            self._sup.committer.commit()
        recorded = self._sup.store.run_by_id(id)
        return recorded.name if recorded is not None else ""

    def _refuse(self, client: Client, ticket: int, id: str) -> None:
        text = f"there is no schedule {id!r}. Those that are: dq schedules --db {self._db}"
        self._clients.answer(client, frames.Refused(ticket, "NoSuchSchedule", text))

    def _told(self, row: ScheduleRow) -> frames.Plan:
        return frames.Plan(
            row.id, self._ledger.functions[row.function].name, row.expression, row.tz, row.catch_up, row.overlap,
            bool(row.paused), row.next_at, row.last_at or 0, row.last_run or "", row.waiting_at or 0, row.skipped,
            row.created_at,
        )  # fmt: skip

    @property
    def _db(self) -> str:
        return shlex.quote(self._sup.options.db)
