"""The verdict: what the file holds, against the history.

    python verdict.py DATABASE HISTORY

It runs when the engine has stopped, uses the standard library alone, opens the file read-only, and shares no code with
what it judges. It prints one JSON object:

    runs         runs, their child runs included
    steps        steps that have a result
    lost         what was acknowledged or told, and the file does not hold: starts, signals, results, effects
    unfinished   runs and steps that have not ended although nobody is at work any more
    repeated     bodies that began after the recorded completion of their step; work that is on record twice
    overlaps     steps that were at work twice at the same time
    wrong        results that are not the ones that are known
    problems     one line for each of these and for whatever else is odd, the first of them
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

Row = dict[str, Any]
Found = Iterator[tuple[str, str]]  # a kind, and what is wrong

_SHOWN = 20
_KINDS = ("lost", "unfinished", "repeated", "overlaps", "wrong", "odd")
_ENDED = ("completed", "failed", "cancelled")

_RUNS = "SELECT name, state, payload FROM dq_run"
_STEPS = """
    SELECT s.id, n.name, r.state, r.epoch, r.ended_at
    FROM dq_step AS s LEFT JOIN dq_run AS n ON n.id = s.run LEFT JOIN dq_result AS r ON r.step = s.id
"""
_TWICE = """
    SELECT r.name, f.name, count(*) FROM dq_step AS s
    JOIN dq_run AS r ON r.id = s.run JOIN dq_function AS f ON f.id = s.function
    GROUP BY s.run, s.scope, s.function, s.occurrence HAVING count(*) > 1
"""
_ATTEMPTS = """
    SELECT r.step, count(*) FROM dq_result AS r JOIN dq_attempt AS a ON a.step = r.step AND a.epoch > r.epoch
    WHERE r.epoch > 0 GROUP BY 1
"""
_SIGNALS = "SELECT r.name, s.name FROM dq_signal AS s JOIN dq_run AS r ON r.id = s.run"
_TABLE = "SELECT 1 FROM sqlite_schema WHERE name = 'chaos_row'"


class File:
    """What the database holds of some runs and their children, and of what bodies have done on their behalf."""

    def __init__(self, path: str, runs: Collection[str], begun: Collection[int]) -> None:
        file = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)

        def ours(name: str | None) -> bool:
            return name is not None and name.partition("/")[0] in runs

        try:
            self.runs = {
                name: (state, _digest(payload or b"")) for name, state, payload in file.execute(_RUNS) if ours(name)
            }
            self.steps: dict[int, tuple[str | None, int, int]] = {
                id: (state, epoch or 0, ended_at or 0)
                for id, run, state, epoch, ended_at in file.execute(_STEPS)
                if ours(run) or id in begun
            }
            self.twice = [row for row in file.execute(_TWICE) if ours(row[0])]
            self.late_attempts = [row for row in file.execute(_ATTEMPTS) if row[0] in self.steps]
            self.signals = set(file.execute(_SIGNALS))
            self.effects = Counter[str]()
            if file.execute(_TABLE).fetchone() is not None:
                self.effects.update(place for (place,) in file.execute("SELECT place FROM chaos_row"))
            self.whole = file.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
        finally:
            file.close()


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


class History:
    """What happened, as those who did it wrote it down."""

    def __init__(self, path: str) -> None:
        self.rows: dict[str, list[Row]] = defaultdict(list)
        self.unread: list[str] = []
        for number, line in enumerate(Path(path).read_text().splitlines(), 1):
            try:
                row = json.loads(line)
                self.rows[row["what"]].append(row)
            except (ValueError, TypeError, LookupError):
                self.unread.append(f"line {number} of the history can't be read: {line[:80]}")
        self.begins: dict[int, list[Row]] = defaultdict(list)
        for row in self.rows["begin"]:
            self.begins[row["step"]].append(row)
        self.ends = {(row["step"], row["epoch"], row["pid"]): row["ns"] for row in self.rows["end"]}
        self.known = {row["run"]: row for row in self.rows["start"]}

    def end(self, begin: Row) -> int | None:
        """When a body came to its end; None where it was cut off."""
        return self.ends.get((begin["step"], begin["epoch"], begin["pid"]))


def find_lost(file: File, history: History) -> Found:
    """What somebody was told of."""
    for row in history.rows["started"]:
        if row["run"] not in file.runs:
            yield "lost", f"run {row['run']} was acknowledged and is not in the file"
    for row in history.rows["signalled"]:
        if (row["run"], row["name"]) not in file.signals:
            yield "lost", f"signal {row['name']} to run {row['run']} was acknowledged and is not in the file"
    for row in history.rows["told"]:
        state, digest = file.runs.get(row["run"], ("", ""))
        if state not in _ENDED or digest != row["digest"]:
            yield "lost", f"the result of run {row['run']} was told and is not in the file as told"


def find_unfinished(file: File) -> Found:
    for name, (state, _) in file.runs.items():
        if state not in _ENDED:
            yield "unfinished", f"run {name} is {state}"
    for id, (state, *_) in file.steps.items():
        if state is None:
            yield "unfinished", f"step {id} has no result"


def find_repeated(file: File, history: History) -> Found:
    """What began after its step had ended, and what is there twice."""
    for id, begins in history.begins.items():
        if id not in file.steps:
            yield "lost", f"step {id} was begun and is not in the file"
            continue
        state, epoch, ended_at = file.steps[id]
        if state is not None:
            yield from _after_the_end(history, id, begins, epoch, ended_at)
    for row in history.rows["seen"]:
        state, epoch, _ = file.steps.get(row["step"], (None, 0, 0))
        if state is not None and 0 < epoch < row["epoch"]:
            yield "repeated", f"step {row['step']} was at work again after its recorded end"
    for run, name, count in file.twice:
        yield "repeated", f"one call of {name} in run {run} is {count} steps"
    for step, count in file.late_attempts:
        yield "repeated", f"step {step} has {count} attempts on record that are later than its result"


def _after_the_end(history: History, id: int, begins: list[Row], epoch: int, ended_at: int) -> Found:
    """Claims are numbered upwards; under the recorded one a single body is right."""
    right = [begin for begin in begins if begin["epoch"] == epoch]
    ended = history.end(right[0]) if right else None
    for begin in begins:
        late = begin["epoch"] > epoch if epoch else begin["at"] > ended_at
        if late or begin in right[1:] or (ended is not None and begin["ns"] > ended):
            yield "repeated", f"step {id} began again after its recorded end"


def find_overlaps(history: History) -> Found:
    for row in history.rows["overlap"]:
        yield "overlaps", f"step {row['step']} was seen at work in the processes {row['workers']} at once"
    for id, begins in history.begins.items():
        for begin in begins:
            if not begin["alone"]:
                yield "overlaps", f"step {id} began while it was at work elsewhere"
        for first, second in itertools.pairwise(sorted(begins, key=lambda begin: begin["ns"])):
            end = history.end(first)
            if end is not None and end > second["ns"]:
                yield "overlaps", f"step {id} began again before it had ended"


def find_wrong(history: History) -> Found:
    for row in history.rows["heard"]:
        if not row["right"]:
            yield "wrong", f"the results of {row['work']} are not the known ones"
    for row in history.rows["told"]:
        if not row["right"]:
            what = "the result" if row["ok"] else "the failure"
            known = history.known.get(row["run"], {}).get("expect", "that of the run without faults")
            yield "wrong", f"{what} of run {row['run']} is {row['value']}, and not {known}"


def find_effects(file: File, history: History) -> Found:
    """What steps of random programs have written into a table: once each."""
    wanted = [place for run, row in history.known.items() if file.runs.get(run, ("",))[0] == "completed"
              for place in row.get("rows", ())]  # fmt: skip
    for place in wanted:
        if not file.effects[place]:
            yield "lost", f"the effect of {place} is not in the file"
    for place, count in file.effects.items():
        if count > 1:
            yield "repeated", f"the effect of {place} is in the file {count} times"


def judge(database: str, history_path: str) -> dict[str, Any]:
    """The verdict as a dict."""
    history = History(history_path)
    file = File(database, history.known, history.begins)
    found: list[tuple[str, str]] = [("odd", text) for text in history.unread]
    if not file.whole:
        found.append(("odd", "the file does not pass SQLite's integrity check"))
    found += find_lost(file, history)
    found += find_unfinished(file)
    found += find_repeated(file, history)
    found += find_overlaps(history)
    found += find_wrong(history)
    found += find_effects(file, history)
    counts = Counter(kind for kind, _ in found)
    return {
        "runs": len(file.runs),
        "steps": sum(state is not None for state, *_ in file.steps.values()),
        **{kind: counts[kind] for kind in _KINDS},
        "problems": [text for _, text in found[:_SHOWN]],
    }


if __name__ == "__main__":
    print(json.dumps(judge(*sys.argv[1:3])))
