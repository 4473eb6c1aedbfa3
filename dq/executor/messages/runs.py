"""Between clients and the supervisor: runs."""

# msgspec hands `frozen` down to subclasses, and pyright wants it repeated in each of them.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from dq.executor.messages.base import Message


class Start(Message, frozen=True, tag=14):
    """Starts a run, or finds the one of that name."""

    ticket: int
    id: int
    name: str
    function: int
    args: bytes
    fingerprint: bytes


class Started(Message, frozen=True, tag=15):
    """The run is on disk. `fresh` is false where it was there before; then `id` is the older one's."""

    ticket: int
    id: int
    fresh: bool


class Clash(Message, frozen=True, tag=16):
    """The run's name is taken by something else: here is what is recorded."""

    ticket: int
    workflow: str
    args: bytes


class Find(Message, frozen=True, tag=17):
    """Asks for a run by name."""

    ticket: int
    name: str


class Record(Message, frozen=True, tag=18):
    """A run as the file has it. `id` is 0 where there is none."""

    ticket: int
    id: int
    workflow: str
    state: str
    reason: str
    done: int  # steps with a result
    steps: int


class Watch(Message, frozen=True, tag=19):
    """Ended of this run is wanted, at once where it has ended already."""

    run: int


class Ended(Message, frozen=True, tag=20):
    """A run reached a final state or is blocked; `payload` is its result, its failure, or the reason as text."""

    run: int
    state: str
    payload: bytes


class Signal(Message, frozen=True, tag=30):
    """A signal to a run. Answered by Done or Refused; `id` is new, and says whether it is known already."""

    ticket: int
    id: int
    run: str
    name: str
    payload: bytes


class CancelRun(Message, frozen=True, tag=31):
    """Asks a run to end. `now`: at once, without another word of its code. Answered by Done or Refused.

    `id` is new, so that a message which comes again after a reconnect is not a second cancel.
    """

    ticket: int
    id: int
    run: str
    now: bool


class Resume(Message, frozen=True, tag=32):
    """Tries a blocked run again. Answered by Done or Refused."""

    ticket: int
    run: str


class Published(Message, frozen=True, tag=34):
    """Asks for the latest value that a run has published under a key. Answered by Events."""

    ticket: int
    run: int
    key: str


class Follow(Message, frozen=True, tag=35):
    """Asks for what a run has published after the step `after`; answered by Events, when there is something."""

    ticket: int
    run: int
    after: int


class Events(Message, frozen=True, tag=36):
    """What a run has published: (step, key, payload, at). `state` is not "" where it has ended, and this is the last."""

    ticket: int
    rows: list[tuple[int, str, bytes, int]]
    state: str


class ListRuns(Message, frozen=True, tag=37):
    """Asks for runs, the newest first: those before the id `before`, in one of these states. Answered by Runs."""

    ticket: int
    before: int
    states: list[str]
    limit: int


class Runs(Message, frozen=True, tag=38):
    """(id, name, workflow, state, parent or 0, created at, ended at or 0)."""

    ticket: int
    rows: list[tuple[int, str, str, str, int, int, int]]


class ForkRun(Message, frozen=True, tag=45):
    """Asks for a new run with a copy of another one's record up to a step. Answered by Done, with its name, or Refused.

    `id` is new, and the new run's. `step` is a step's id, a name, or NAME#N; "" copies nothing. A `retry` finds the step
    itself. `args` of b"" are the other one's. Without a `name` it gets the other one's with a number.
    """

    ticket: int
    id: int
    run: str
    name: str
    step: str
    retry: bool
    args: bytes
    fingerprint: bytes


OfRuns = (
    Start | Started | Clash | Find | Record | Watch | Ended | Signal | CancelRun | Resume | Published | Follow |
    Events | ListRuns | Runs | ForkRun
)  # fmt: skip

__all__ = [
    "CancelRun", "Clash", "Ended", "Events", "Find", "Follow", "ForkRun", "ListRuns", "OfRuns", "Published",
    "Record", "Resume", "Runs", "Signal", "Start", "Started", "Watch",
]  # fmt: skip
