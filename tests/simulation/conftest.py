"""What holds for every simulated history."""

from __future__ import annotations

import pytest

from dq.crew import supervisor
from dq.crew.members import Member


@pytest.fixture(autouse=True)
def by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this process decides: not its own children, and not where its objects lie in memory."""
    monkeypatch.setattr(supervisor, "reap_strangers", lambda _known: None)
    monkeypatch.setattr(Member, "__hash__", lambda member: member.slot)
