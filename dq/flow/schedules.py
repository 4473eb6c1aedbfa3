"""`@dq.schedule`: what a workflow's own code says of when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dq.errors import BadSchedule
from dq.flow.decorators import Workflow
from dq.flow.settings import micros

if TYPE_CHECKING:
    from collections.abc import Callable

    from dq.flow.settings import Span

W = TypeVar("W", bound=Workflow[..., Any])


class Plan(NamedTuple):
    """When runs are started, as it travels and rests."""

    expression: str
    tz: str
    catch_up: str
    overlap: str


class Mark(NamedTuple):
    """What one `@dq.schedule` says."""

    id: str
    plan: Plan
    args: tuple[Any, ...]


def schedule(
    cron: str | None = None,
    /,
    *,
    every: Span | None = None,
    tz: str | None = None,
    catch_up: str = "skip",
    overlap: str | None = None,
    id: str | None = None,
    args: tuple[Any, ...] = (),
) -> Callable[[W], W]:
    """Says of a workflow that a run of it is started at each of these times. It stands above `@dq.workflow`.

    It is a mark: the schedule itself is in the file, from the first `dq up FILE` or `engine.schedule(workflow)` on, and
    fires whenever a supervisor with workers is there.

    Args:
        cron: A cron expression: minute, hour, day of month, month, day of week; a sixth field before them is for seconds.
        every: In place of it: the time between two runs, a timedelta or seconds, of at least one second.
        tz: The time zone of the expression, such as "Europe/Berlin"; "UTC" where none is named.
        catch_up: What becomes of times at which nobody was there: "skip" leaves them out, "one" makes up for the last of
            them, "all" for each. What is no more than ten seconds late is not missed.
        overlap: What becomes of a time at which the run before is unfinished: "skip" leaves it out, "queue" starts it when
            that one has ended (one waits at most), "allow" starts it. The default is "skip", and "allow" with
            `catch_up="all"`.
        id: The schedule's id, by default the workflow's name. A run's id is that and the time: "nightly@2026-11-24T18:05:00Z".
        args: The arguments of each run.

    Raises:
        BadSchedule: The expression, the zone or an option makes no sense, or two of them contradict each other.

    Example:
        @dq.schedule("30 2 * * *", tz="Europe/Berlin", catch_up="one")
        @dq.workflow
        def nightly() -> None: ...
    """
    plan = planned(cron, every, tz, catch_up, overlap)
    if not isinstance(args, tuple):
        raise TypeError(f"args is {args!r}; it is a tuple of the workflow's arguments, such as (240,)")

    def mark(workflow: W) -> W:
        if not isinstance(workflow, Workflow):
            raise TypeError(f"dq.schedule marks workflows, not {workflow!r}: put it above @dq.workflow")
        made = Mark(id or workflow.name or workflow.__name__, plan, args)
        if made.id in {other.id for other in workflow.schedules}:
            raise BadSchedule(
                f"two schedules of {workflow.__name__} have the id {made.id!r}; give one of them its own, such as "
                f'id="{made.id}-2"'
            )
        workflow.schedules = (*workflow.schedules, made)
        return workflow

    return mark


def planned(cron: str | None, every: Span | None, tz: str | None, catch_up: str, overlap: str | None) -> Plan:
    """What is said of a schedule, checked. Raises BadSchedule."""
    from time import time_ns

    from dq.executor import times

    if (cron is None) == (every is None):
        what = "neither a cron expression nor" if cron is None else "both a cron expression and"
        raise BadSchedule(f'a schedule has {what} every=...; it is "*/5 * * * *", say, or every=timedelta(minutes=5)')
    if every is not None and tz is not None:
        raise BadSchedule(f"every=... counts real time, which has no time zone; leave tz={tz!r} out")
    if cron is not None and not isinstance(cron, str):
        raise BadSchedule(f'the cron expression is {cron!r}; it is a text such as "*/5 * * * *"')
    expression = " ".join(cron.split()) if cron is not None else times.every(micros(every))
    plan = Plan(expression, tz or "UTC", catch_up, overlap or ("allow" if catch_up == "all" else "skip"))
    times.check(*plan).first(time_ns() // 1000)
    return plan
