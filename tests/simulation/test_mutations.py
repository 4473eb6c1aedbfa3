"""The histories notice when a guard is missing: each of these takes one away, and some number must turn red."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from dq.crew import committer
from dq.crew.committer import Committer
from dq.crew.evidence import Death
from dq.crew.members import Member
from dq.crew.peer import Peer
from dq.crew.results import Results
from dq.crew.supervisor import Supervisor
from dq.model.states import STATUS
from tests.simulation.play import play

Patch = pytest.MonkeyPatch
TRIES = 60  # numbers, from the first that is given, until it must have been noticed


def without_the_fence(patch: Patch) -> None:
    """A result counts whoever holds the step."""
    take = Results.take

    def takes(self: Results, member: Member, message: Any) -> None:
        claim = member.claims.get(message.epoch)
        for id, status, payload, began, _ in message.rows:
            if claim is None or id not in claim.open:
                row = (id, None, str(STATUS[status]), 1, message.epoch, member.pid, began, began, payload)
                self._committer.group.results.append(row)
                self._committer.dirty = True
        take(self, member, message)

    patch.setattr(Results, "take", takes)


def without_the_kill(patch: Patch) -> None:
    """What hangs is given up, and not ended first."""
    made = Supervisor._introduce

    def introduces(self: Supervisor) -> None:
        made(self)

        def kill(member: Member, why: str) -> None:
            member.why, member.stopping = why, True
            self._lost(member, Death(9, 0))

        self.staff.kill = kill  # type: ignore[method-assign]

    patch.setattr(Supervisor, "_introduce", introduces)


def without_the_drain(patch: Patch) -> None:
    """What a dead process had sent is thrown away."""
    patch.setattr(Peer, "drain", lambda _self: [])


def without_the_sync(patch: Patch) -> None:
    """The answer leaves first, and then what it tells is made durable."""
    sync = Committer._sync

    def syncs(self: Committer) -> None:
        committer._send(self._waiting)
        sync(self)

    patch.setattr(Committer, "_sync", syncs)


def early_timers(patch: Patch) -> None:
    """Alarms ring a second before their time."""
    from dq.crew.timers import Timers

    run = Timers.run
    patch.setattr(Timers, "run", lambda self, now: run(self, now + (1_000_000 if now > 1e12 else 0)))


@pytest.mark.parametrize(
    ("mutate", "first", "expected"),
    [
        (without_the_fence, 2, "Fenced"),
        (without_the_kill, 0, "while|does not rise"),
        (without_the_drain, 26, "sent whole"),
        (without_the_sync, 21, "acknowledged|told|taken"),
        (early_timers, 0, "is early"),
    ],
)
def test_a_missing_guard_is_noticed(
    mutate: Callable[[Patch], None], first: int, expected: str, monkeypatch: Patch
) -> None:
    mutate(monkeypatch)
    for number in range(first, first + TRIES):
        history = play(number)
        if history.error is not None:
            assert re.search(expected, f"{type(history.error).__name__}: {history.error}")
            return
    pytest.fail(f"nobody noticed in {TRIES} histories: {mutate.__doc__}")
