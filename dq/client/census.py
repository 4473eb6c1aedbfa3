"""Who is at work for an engine."""

from __future__ import annotations

from typing import NamedTuple


class Member(NamedTuple):
    """A process of the crew.

    Attributes:
        kind: "supervisor", "template", "worker" or "host".
        pid: Its process id.
        slot: Its number in the slots file, -1 if it has none.
        finished: How many steps it has finished.
        id: The step or run that it is at, 0 for none.
        busy: Microseconds that it has been at it.
    """

    kind: str
    pid: int
    slot: int
    finished: int
    id: int
    busy: int


class Crew(NamedTuple):
    """Who is at work on a file, and how much there is to do.

    Attributes:
        boot_epoch: Goes up with every supervisor of the file.
        rows: The processes.
        pending: Steps that nobody has claimed.
        claimed: Steps that a worker has.
        stale: What came too late since this supervisor began, and was refused: results under a claim that was over, and
            ends of runs from a host that did not have them any more. None of it has changed anything.
    """

    boot_epoch: int
    rows: list[Member]
    pending: int
    claimed: int
    stale: int = 0
