"""Workflows that run at times: each says for which."""

from __future__ import annotations

import dq
from tests.process.flows import note


@dq.step
def write(folder: str, at: str) -> None:
    note(folder, "at", at)


@dq.workflow
def punctual(folder: str) -> str:
    """Notes the time that its schedule has started it for."""
    due = dq.current().scheduled_at
    at = due.strftime("%Y-%m-%dT%H:%M:%SZ") if due is not None else "by-hand"
    write(folder, at)
    return at


@dq.schedule("30 2 * * *", tz="Europe/Berlin", catch_up="one", id="nightly", args=("somewhere",))
@dq.schedule(every=3600, args=("here",))
@dq.workflow
def marked(folder: str) -> str:
    return folder
