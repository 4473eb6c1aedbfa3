"""Schedules, as an engine sees them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dq.client import ids
from dq.client.run import Run, find
from dq.errors import BadSchedule, NoSuchSchedule
from dq.executor.frames import Book, Done, ListPlans, Plan, Plans, Replan, Trigger
from dq.flow.decorators import Workflow
from dq.flow.fingerprint import fingerprint
from dq.flow.schedules import Mark, planned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dq.client.connection import Connection
    from dq.flow.settings import Span

_ID_MAX = 200  # characters; the time follows in the ids of runs


class Schedule:
    """Runs of a workflow that are started at times. `engine.schedule` and `engine.schedules` return them.

    Attributes: as they were when it was asked for.
        id: The schedule's id; its runs are ID@TIME, with the time in UTC.
        workflow: What the record calls its workflow, such as "flows:nightly".
        expression: The cron expression, or "every 90 s".
        tz: The time zone of the expression.
        catch_up: "skip", "one" or "all".
        overlap: "skip", "queue" or "allow".
        paused: Whether it fires at all.
        next_at: When it fires next (UTC); None while it is paused.
        last_at: The last time for which a run was started; None before the first.
        last_run: The id of the run that was started last.
        waiting_at: The time whose run waits for the end of that one.
        skipped: How many times fell out, since the run before was unfinished.

    Example:
        nightly = engine.schedule(report, "30 2 * * *", tz="Europe/Berlin")
        print(nightly.next_at)
        nightly.trigger().result()
    """

    def __init__(self, line: Connection, plan: Plan) -> None:
        self._line = line
        self.id = plan.id
        self.workflow = plan.workflow
        self.expression = plan.expression
        self.tz = plan.tz
        self.catch_up = plan.catch_up
        self.overlap = plan.overlap
        self.paused = plan.paused
        self.next_at = None if plan.paused else _moment(plan.next_at)
        self.last_at = _moment(plan.last_at)
        self.last_run = plan.last_run or None
        self.waiting_at = _moment(plan.waiting_at)
        self.skipped = plan.skipped

    def __repr__(self) -> str:
        return f"<dq.Schedule {self.id!r} of {self.workflow}: {self.expression}, {self.tz}>"

    def pause(self) -> None:
        """Has nothing started any more until it is resumed; a run that waits for its turn is dropped.

        Raises:
            NoSuchSchedule: Somebody has deleted it.
        """
        self._ask("pause")

    def resume(self) -> None:
        """Has it fire again from now on. Times that fell into the pause are not caught up with. Raises NoSuchSchedule."""
        self._ask("resume")

    def delete(self) -> None:
        """Takes it out of the file. Runs that it has started go on."""
        self._line.ask(lambda ticket: Replan(ticket, self.id, "delete"))

    def trigger(self) -> Run[Any]:
        """Starts a run now, whether it is paused, and whatever is unfinished. Raises NoSuchSchedule."""
        number = self._line.next_id()
        name = cast(Done, self._line.ask(lambda ticket: Trigger(ticket, number, self.id))).text
        record = find(self._line, name)
        return Run(self._line, record.id, name, record.workflow)

    def _ask(self, what: str) -> None:
        self._line.ask(lambda ticket: Replan(ticket, self.id, what))
        now = pick(listed(self._line), self.id)
        self.paused, self.next_at, self.waiting_at = now.paused, now.next_at, now.waiting_at


class Asked(NamedTuple):
    """What `Engine.schedule` was called with."""

    cron: str | None
    every: Span | None
    tz: str | None
    catch_up: str | None
    overlap: str | None
    id: str | None
    args: tuple[Any, ...]


def book(line: Connection, workflow: object, asked: Asked, kwargs: dict[str, Any]) -> Schedule:
    """Puts a schedule on record. Raises like `Engine.schedule`."""
    if not isinstance(workflow, Workflow):
        raise TypeError(f"{workflow!r} is not a workflow; decorate it with @dq.workflow")
    if asked.cron is None and asked.every is None:
        mark = _marked(workflow, asked, kwargs)
    else:
        name = workflow.name or workflow.__name__
        plan = planned(asked.cron, asked.every, asked.tz, asked.catch_up or "skip", asked.overlap)
        mark = Mark(name if asked.id is None else asked.id, plan, asked.args)
    id = ids.checked(mark.id)
    if len(id) > _ID_MAX:
        raise BadSchedule(f"a schedule's id may have {_ID_MAX} characters; this one has {len(id)}: {id[:40]!r}...")
    payload = line.codec.pack((mark.args, kwargs), "arguments")
    if not isinstance(payload, bytes):  # all runs would share a side file, which goes with the first of them
        raise BadSchedule(
            "the arguments of a schedule have more than 256 KiB. Keep them in a file, and give the schedule its path"
        )
    function = line.table.number(workflow, "workflow")
    same = fingerprint(mark.args, kwargs)
    answer = line.ask(lambda ticket: Book(ticket, id, function, payload, same, *mark.plan))
    return Schedule(line, cast(Plans, answer).rows[0])


def _marked(workflow: Workflow[..., Any], asked: Asked, kwargs: dict[str, Any]) -> Mark:
    """What `@dq.schedule` says of it."""
    name = workflow.__name__
    marks = [mark for mark in workflow.schedules if asked.id in (None, mark.id)]
    if not workflow.schedules:
        raise BadSchedule(
            f'{name} has no @dq.schedule, so say when: engine.schedule({name}, "*/5 * * * *") or '
            f"engine.schedule({name}, every=timedelta(minutes=5))"
        )
    if kwargs or any(value for value in (asked.tz, asked.catch_up, asked.overlap, asked.args)):
        raise BadSchedule(
            f"without an expression all is as @dq.schedule says above {name}; give one to say something else"
        )
    if len(marks) != 1:
        there = ", ".join(mark.id for mark in workflow.schedules)
        raise BadSchedule(f"say which schedule of {name} is meant: id=... is one of {there}")
    return marks[0]


def listed(line: Connection) -> list[Schedule]:
    """All schedules of the file, by id."""
    return [Schedule(line, plan) for plan in cast(Plans, line.ask(ListPlans)).rows]


def pick(schedules: Iterable[Schedule], id: str) -> Schedule:
    """The schedule of an id. Raises NoSuchSchedule."""
    there = {schedule.id: schedule for schedule in schedules}
    if id not in there:
        raise NoSuchSchedule(f"there is no schedule {id!r} in the file; those that are: {', '.join(there) or 'none'}")
    return there[id]


def _moment(micros: int) -> datetime | None:
    if not micros:
        return None
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)
