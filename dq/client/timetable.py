"""What an engine has to say of schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dq.client.schedules import Asked, book, listed, pick

if TYPE_CHECKING:
    from collections.abc import Callable

    from dq.client.connection import Connection
    from dq.client.schedules import Schedule
    from dq.flow.settings import Span


class Timetable:
    """The part of an engine that deals with schedules."""

    _line: Connection

    def schedule(
        self,
        workflow: Callable[..., Any],
        cron: str | None = None,
        /,
        *args: Any,
        every: Span | None = None,
        id: str | None = None,
        tz: str | None = None,
        catch_up: str | None = None,
        overlap: str | None = None,
        **kwargs: Any,
    ) -> Schedule:
        """Has runs of a workflow started at times, by whoever works on the file then. Returns when that is on disk.

        The same id is the same schedule: with other times, options or arguments it is changed. Then it keeps what it has
        started so far, and whether it is paused. Without `cron` and `every` it takes what `@dq.schedule` says above the
        workflow; where that stands there more than once, `id` says which.

        Args:
            workflow: What `dq.workflow` made.
            cron: A cron expression; None before arguments where there is `every`.
            args: The arguments of each run, up to 256 KiB.
            every: See `dq.schedule`, and so for `tz`, `catch_up` and `overlap`.
            id: By default the workflow's name. A workflow's own parameters of these names can be given by position only.
            kwargs: The keyword arguments of each run.

        Raises:
            BadSchedule: The expression, the zone or an option makes no sense, or two of them contradict each other.
            ScheduleConflict: The id is another workflow's schedule.
            NotPicklable: The arguments can't travel.

        Example:
            engine.schedule(report, "30 2 * * *", "sales", id="nightly", tz="Europe/Berlin", catch_up="one")
        """
        asked = Asked(cron, every, tz, catch_up, overlap, id, args)
        return book(self._line, workflow, asked, kwargs)

    def schedules(self) -> list[Schedule]:
        """All schedules of the file, by id."""
        return listed(self._line)

    def unschedule(self, id: str) -> None:
        """Deletes a schedule. Runs that it has started go on. Raises NoSuchSchedule."""
        pick(self.schedules(), id).delete()
