"""Who is at work, as it is told to whoever asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dq.executor import frames

if TYPE_CHECKING:
    from dq.crew.supervisor import Supervisor


def census(supervisor: Supervisor, ticket: int) -> frames.Crew:
    """Who is at work now."""
    now = supervisor.clock.monotonic()
    rows = [("supervisor", supervisor.pid, -1, 0, 0, 0)]
    rows += [("template", nursery.pid, -1, 0, 0, 0) for nursery in supervisor.staff.nurseries if nursery.pid]
    for member in supervisor.staff.members:
        if member.ready:
            begun = next((entry.id for entry in supervisor.slots.entries(member.slot)), 0)
            since = int((now - member.busy_since) * 1e6) if begun else 0
            rows.append((member.kind, member.pid, member.slot, member.finished, begun, since))
    pending = sum(lane.pending for lane in supervisor.scheduler.lanes.values()) + supervisor.queues.shut_out()
    scheduler = supervisor.scheduler
    return frames.Crew(ticket, supervisor.ledger.boot_epoch, rows, pending, scheduler.claimed, scheduler.stale)
