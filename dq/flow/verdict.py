"""What a replay has come to, and what a person should know of it before new code is deployed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dq.executor.options import CHECKPOINT, PATCHED, PUBLISH, SLEEP, WAIT_SIGNAL

_SHOWN = 5  # steps that a note names
_WITHOUT_EFFECT = (CHECKPOINT, PATCHED, PUBLISH, SLEEP, WAIT_SIGNAL)

FINISHED, WAITING, BLOCKED, FAILED = "finished", "waiting", "blocked", "failed"


class Spot(NamedTuple):
    """A step that a run has asked for, or that is on record.

    Attributes:
        name: What the record calls the step.
        scope: The branch of the run that it belongs to; "0" is the workflow itself.
        occurrence: The how-manieth of this name in that branch, from 0.
        step: Its id; 0 for one that is not on record.
    """

    name: str
    scope: str
    occurrence: int
    step: int = 0

    def __str__(self) -> str:
        branch = f" in branch {self.scope}" if self.scope != "0" else ""
        return f"{self.name}, call {self.occurrence + 1}{branch}"


@dataclass(frozen=True)
class Verdict:
    """What a run does with its record and the code that is on disk now. Nothing has been written, no step has run.

    Attributes:
        outcome: "finished": its workflow returned. "failed": it raised. "waiting": it waits for what is not on record.
            "blocked": its record does not fit the code.
        reason: Why it is blocked, or the traceback of what it raised; else "".
        result: What its workflow returned.
        error: What its workflow raised.
        waits_for: Steps, timers and signals that it waits for.
        asked: Those that it asked for which are not on record.
        left_over: Those on record that it did not ask for.
        same: Whether it came to what is on record; None where the record has no end.
        expected: Whether the end follows from the record (a step that failed, a cancel), and not from the code alone.
        state: In which state the run would be: "running", "blocked", "completed", "failed" or "cancelled".
    """

    outcome: str
    reason: str = ""
    result: Any = None
    error: BaseException | None = None
    waits_for: list[Spot] = field(default_factory=list[Spot])
    asked: list[Spot] = field(default_factory=list[Spot])
    left_over: list[Spot] = field(default_factory=list[Spot])
    same: bool | None = None
    expected: bool = False
    state: str = "running"

    @property
    def goes_on(self) -> bool:
        """Whether the run would go on, or end as its record says."""
        return self.outcome in (FINISHED, WAITING) or (self.outcome == FAILED and self.expected)

    def notes(self) -> list[str]:
        """What does not break the run and should be known all the same."""
        if self.outcome == BLOCKED or (self.outcome == FAILED and not self.expected):
            return []
        notes: list[str] = []
        new = [spot for spot in self.asked if not spot.name.startswith(PATCHED)]
        left = [spot for spot in self.left_over if not spot.name.startswith(_WITHOUT_EFFECT)]
        branches = {spot.scope for spot in new} & {spot.scope for spot in left}
        if branches:
            fresh = [spot for spot in new if spot.scope in branches]
            passed = [spot for spot in left if spot.scope in branches]
            notes.append(
                f"it asks for what is new ({_listed(fresh)}), while in the same branch something else is on record that it "
                f"has not asked for by then ({_listed(passed)}). If the one is the other under a new name, its effect "
                "happens again"
            )
        elif left and self.outcome == FINISHED:
            notes.append(f"it would end without having asked for what is on record: {_listed(left)}")
        if self.outcome == FAILED:
            notes.append(f"it would end as {self.state}, as its record says: {self.error!r}")
        return notes


def _listed(spots: list[Spot]) -> str:
    more = f" and {len(spots) - _SHOWN} more" if len(spots) > _SHOWN else ""
    return "; ".join(map(str, spots[:_SHOWN])) + more
