"""The history of a test: what clients, bodies and the killer have written down, one JSON object a line.

The lines are those of `dq/cli/chaos/history.py`, read here by code of their own: a judge that shared it with what it judges
would share its mistakes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple


class Begin(NamedTuple):
    """A body that began. `end` is when it came to its end, None where it was cut off."""

    step: int
    epoch: int
    pid: int
    ns: int  # of the monotonic clock
    at: int  # microseconds UTC
    label: str
    alone: bool
    end: int | None


class History:
    """What happened, in the order in which it was written.

    Attributes:
        begins: Bodies by step, in the order in which they began.
        labels: Steps by what they are called in the program.
        starts: What clients wanted to start: run -> what is known of it beforehand.
        acknowledged: Runs whose start was acknowledged.
        signalled: (run, name) of signals that were acknowledged.
        told: (run, digest of the recorded bytes, whether it was right) of results that arrived.
        alone: Pieces of work that no run asked for: work -> places of its steps.
        flushed: Those that were acknowledged.
        heard: (work, whether it was right) of those whose results arrived.
        deaths: When a supervisor was killed and dead.
        left: Processes that have outlived their engine.
        overlaps: Steps at which two processes were seen at once.
        seen: (step, epoch) at which processes were seen.
    """

    def __init__(self, path: str | Path) -> None:
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in Path(path).read_text().splitlines():
            row = json.loads(line)
            rows[row["what"]].append(row)
        ends = {(row["step"], row["epoch"], row["pid"]): row["ns"] for row in rows["end"]}
        self.begins: dict[int, list[Begin]] = defaultdict(list)
        self.labels: dict[str, set[int]] = defaultdict(set)
        for row in rows["begin"]:
            step, epoch, pid = row["step"], row["epoch"], row["pid"]
            end = ends.get((step, epoch, pid))
            self.begins[step].append(Begin(step, epoch, pid, row["ns"], row["at"], row["label"], row["alone"], end))
            self.labels[row["label"]].add(step)
        self.starts = {row["run"]: row for row in rows["start"]}
        self.acknowledged = {row["run"] for row in rows["started"]}
        self.signalled = {(row["run"], row["name"]) for row in rows["signalled"]}
        self.told = [(row["run"], row["digest"], row["right"]) for row in rows["told"]]
        self.deaths = [row["ns"] for row in rows["kill"] if row["kind"] in ("supervisor", "group")]
        self.alone = {row["work"]: row["must"] for row in rows["alone"]}
        self.flushed = {row["work"] for row in rows["flushed"]}
        self.heard = [(row["work"], row["right"]) for row in rows["heard"]]
        self.left = [found for row in rows["drained"] for found in row["left"]]
        self.overlaps = [row["step"] for row in rows["overlap"]]
        self.seen = {(row["step"], row["epoch"]) for row in rows["seen"]}
