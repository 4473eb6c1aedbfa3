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
        self.begins: dict[int, list[Begin]] = defaultdict(list)
        self.labels: dict[str, set[int]] = defaultdict(set)
        self.starts: dict[str, dict[str, Any]] = {}
        self.acknowledged: set[str] = set()
        self.signalled: set[tuple[str, str]] = set()
        self.told: list[tuple[str, str, bool]] = []
        self.deaths: list[int] = []
        self.alone: dict[str, list[str]] = {}
        self.flushed: set[str] = set()
        self.heard: list[tuple[str, bool]] = []
        self.left: list[list[Any]] = []
        self.overlaps: list[int] = []
        self.seen: set[tuple[int, int]] = set()
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        ends = {(row["step"], row["epoch"], row["pid"]): row["ns"] for row in rows if row["what"] == "end"}
        for row in rows:
            self._take(row, ends)

    def _take(self, row: dict[str, Any], ends: dict[tuple[int, int, int], int]) -> None:
        match row["what"]:
            case "begin":
                step, epoch, pid = row["step"], row["epoch"], row["pid"]
                begin = Begin(
                    step, epoch, pid, row["ns"], row["at"], row["label"], row["alone"], ends.get((step, epoch, pid))
                )
                self.begins[step].append(begin)
                self.labels[row["label"]].add(step)
            case "start":
                self.starts[row["run"]] = row
            case "alone":
                self.alone[row["work"]] = row["must"]
            case "flushed":
                self.flushed.add(row["work"])
            case "heard":
                self.heard.append((row["work"], row["right"]))
            case "started":
                self.acknowledged.add(row["run"])
            case "signalled":
                self.signalled.add((row["run"], row["name"]))
            case "told":
                self.told.append((row["run"], row["digest"], row["right"]))
            case "kill" if row["kind"] == "supervisor":
                self.deaths.append(row["ns"])
            case "overlap":
                self.overlaps.append(row["step"])
            case "seen":
                self.seen.add((row["step"], row["epoch"]))
            case "drained":
                self.left += row["left"]
            case _:
                pass
