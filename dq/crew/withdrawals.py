"""Takes steps back that nobody wants any more and no member holds: wherever they wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dq.crew.peer import Peer

if TYPE_CHECKING:
    from dq.crew.claims import Batch, Row, Segment
    from dq.crew.ledger import Run
    from dq.crew.supervisor import Supervisor


def withdraw(supervisor: Supervisor, owner: Peer | Run, ids: set[int]) -> list[tuple[Row, Batch | None]]:
    """Those of `ids` that a client or a run has asked for and that wait: for a worker, a time, or a step like them."""
    scheduler = supervisor.scheduler
    taken = supervisor.delays.take(owner, ids) + supervisor.dedups.take_back(owner, ids)
    span = min(ids, default=0), max(ids, default=0)
    for lane in scheduler.lanes.values():
        for segment in list(lane.segments()):
            if not _is_of(segment, owner, *span):
                continue
            while (segment.batch is not None or segment.run is owner) and scheduler.load(lane, segment, segment.left):
                pass
            gone = [row for row in segment.rows[segment.at :] if row[0] in ids]
            if gone:
                segment.rows, segment.at = [row for row in segment.rows[segment.at :] if row[0] not in ids], 0
                scheduler.fewer(lane, segment, len(gone))
                scheduler.unload(gone)
                taken += [(row, segment.batch) for row in gone]
    return taken


def _is_of(segment: Segment, owner: Peer | Run, least: int, most: int) -> bool:
    """Whether a segment may hold rows of an owner with ids from `least` to `most`.

    What an earlier supervisor has left waits in a queue that is nobody's, whoever has adopted it since.
    """
    batch = segment.batch
    if batch is None:
        return not isinstance(owner, Peer)
    return batch.owner is owner and batch.first <= most and batch.last >= least


def belongs(step: int, batch: Batch | None, owner: Peer | Run, flow: dict[int, Run]) -> bool:
    """Whether a client or a run has asked for a step."""
    return batch.owner is owner if batch is not None else flow.get(step) is owner
