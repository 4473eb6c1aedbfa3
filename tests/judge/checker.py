"""The judge: what a database file holds, against the history of what happened to it.

It knows SQLite and the format of the file, and nothing of the code that wrote it. It is asked when the engine has drained.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tests.judge.history import Begin, History
from tests.judge.record import FINAL, Record, Result, value


class Finding(NamedTuple):
    """Something that was promised and does not hold."""

    kind: str  # lost, unfinished, repeated, overlap, unaccounted, wrong, effect, orphan, damaged
    what: str


def judge(database: str | Path, history: str | Path) -> list[Finding]:
    """All findings, none where every promise holds."""
    judgement = Judge(Record(database), History(history))
    return [*judgement.findings()]


class Judge:
    """One database and one history."""

    def __init__(self, record: Record, history: History) -> None:
        self.record = record
        self.history = history

    def findings(self) -> Iterator[Finding]:
        yield from self.lost()
        yield from self.unfinished()
        yield from self.repeated()
        yield from self.overlaps()
        yield from self.unaccounted()
        yield from self.wrong()
        yield from self.programs()
        yield from self.effects()
        for kind, pid in self.history.left:
            yield Finding("orphan", f"{kind} {pid} has outlived its engine")
        if not self.record.whole:
            yield Finding("damaged", "the file does not pass SQLite's integrity check")
        for row in self.record.twice:
            yield Finding("repeated", f"one {row[0]} twice in run {row[1]}: {row[2:]}")

    def lost(self) -> Iterator[Finding]:
        """What was acknowledged and is not there. What was not acknowledged may be there or not."""
        for run in self.history.acknowledged - self.record.runs.keys():
            yield Finding("lost", f"run {run} was acknowledged")
        for run, digest, _ in self.history.told:
            held = self.record.runs.get(run)
            if held is None or held.state not in FINAL or held.digest != digest:
                yield Finding("lost", f"the result of run {run} was told, and the file holds another or none")
        for signal in self.history.signalled - self.record.signals:
            yield Finding("lost", f"signal {signal} was acknowledged")

    def unfinished(self) -> Iterator[Finding]:
        """After a drain everything that was begun has ended."""
        for run in self.history.starts:
            held = self.record.runs.get(run)
            if held is not None and held.state not in FINAL:
                yield Finding("unfinished", f"run {run} is {held.state}")
        for id, step in self.record.steps.items():
            if step.result is None:
                yield Finding("unfinished", f"step {id} ({step.name}) has no result")

    def repeated(self) -> Iterator[Finding]:
        """Bodies that began after the recorded completion of their step."""
        for id, begins in self.history.begins.items():
            step = self.record.steps.get(id)
            if step is None:
                yield Finding("lost", f"step {id} has begun, and the file does not know it")
            elif step.result is not None:
                yield from _begun_again(id, begins, step.result)
        for id, epoch in self.history.seen:
            step = self.record.steps.get(id)
            if step is not None and step.result is not None and epoch > step.result.epoch > 0:
                yield Finding(
                    "repeated", f"step {id} was seen at work under {epoch} and ended under {step.result.epoch}"
                )

    def overlaps(self) -> Iterator[Finding]:
        """Two bodies of a step at once, or two steps of a queue that lets through one."""
        for step in self.history.overlaps:
            yield Finding("overlap", f"step {step} was seen at work in two processes")
        for step, begins in self.history.begins.items():
            for begin in begins:
                if not begin.alone:
                    yield Finding("overlap", f"step {step} began under {begin.epoch} while it was at work elsewhere")
            yield from _overlapping(f"step {step}", begins)
        steps = self.record.steps
        narrow = [begin for begins in self.history.begins.values() for begin in begins
                  if begin.step in steps and steps[begin.step].name.endswith((":queued", ":clogging"))]  # fmt: skip
        yield from _overlapping("the narrow queue", narrow)

    def unaccounted(self) -> Iterator[Finding]:
        """Each body that has begun is on record as an attempt, or its result is.

        One that had ended may be missing where the supervisor died before it had written that down.
        """
        for id, begins in self.history.begins.items():
            step = self.record.steps.get(id)
            result = step.result if step is not None else None
            for place, begin in enumerate(begins):
                if (id, begin.epoch) in self.record.attempts or (result is not None and result.epoch == begin.epoch):
                    continue
                until = begins[place + 1].ns if place + 1 < len(begins) else float("inf")
                if begin.end is None or not any(begin.end < death < until for death in self.history.deaths):
                    how = "had ended" if begin.end is not None else "was cut off"
                    yield Finding("unaccounted", f"step {id} under {begin.epoch} {how}, and no attempt is on record")

    def wrong(self) -> Iterator[Finding]:
        """Results that are not those of the plain computation."""
        for run, _, right in self.history.told:
            if not right:
                yield Finding("wrong", f"run {run} came to another end than the plain function")
        for work, right in self.history.heard:
            if not right:
                yield Finding("wrong", f"the steps of {work} came to other results than the plain function")
        for run, known in self.history.starts.items():
            held = self.record.runs.get(run)
            if (
                held is not None
                and held.state == "completed"
                and known.get("expect") not in (None, value(held.payload))
            ):
                yield Finding("wrong", f"run {run}: {value(held.payload)} for {known['expect']}")

    def programs(self) -> Iterator[Finding]:
        """Each place of a program is one step, which has ended as it should."""
        places: set[str] = set()
        for work, known_places in self.history.alone.items():
            places.update(known_places)
            for place in known_places if work in self.history.flushed else ():
                yield from self._place(place, ("completed",))
        for run, known in self.history.starts.items():
            held = self.record.runs.get(run)
            places.update(known.get("must", ()), known.get("fails", ()), known.get("may", ()))
            if held is None or held.state not in FINAL:
                continue
            for states, wanted in ((("completed",), "must"), (("failed",), "fails")):
                for place in known.get(wanted, ()):
                    yield from self._place(place, states)
        for label in self.history.labels.keys() - places if places else ():
            yield Finding("repeated", f"a step at {label}, which no program has")

    def _place(self, place: str, states: tuple[str, ...]) -> Iterator[Finding]:
        steps = self.history.labels.get(place, set())
        ended = [self.record.steps[step].result for step in steps if step in self.record.steps]
        if len(steps) != 1:
            yield Finding("repeated" if steps else "lost", f"{place} of a program was {len(steps)} steps")
        elif not any(result is not None and result.state in states for result in ended):
            yield Finding("wrong", f"{place} of a program has ended as {[r and r.state for r in ended]}")

    def effects(self) -> Iterator[Finding]:
        """What steps have written is there once each."""
        wanted: set[str] = set()
        allowed: set[str] = set()
        for run, known in self.history.starts.items():
            held = self.record.runs.get(run)
            allowed.update(known.get("rows", ()))
            if held is not None and held.state in FINAL:
                wanted.update(known.get("rows", ()))
        for place in wanted - self.record.rows.keys():
            yield Finding("effect", f"the effect of {place} is missing")
        for place, count in self.record.rows.items():
            if count > 1 or place not in allowed:
                yield Finding("effect", f"the effect of {place} is there {count} times")


def _begun_again(id: int, begins: list[Begin], result: Result) -> Iterator[Finding]:
    """Claims are numbered upwards, so a body under a later claim than the recorded one is one too many."""
    right = [begin for begin in begins if begin.epoch == result.epoch]
    ended = right[0].end if right else None
    for begin in begins:
        late = begin.at > result.ended_at if not result.epoch else begin.epoch > result.epoch
        if late or begin in right[1:] or (ended is not None and begin.ns > ended):
            yield Finding(
                "repeated", f"step {id} began under {begin.epoch} and had ended ({result.state}, {result.epoch})"
            )


def _overlapping(what: str, begins: list[Any]) -> Iterator[Finding]:
    for one, other in pairwise(sorted(begins, key=lambda begin: begin.ns)):
        if one.end is not None and one.end > other.ns:
            yield Finding("overlap", f"{what}: {other.step} began under {other.epoch} before {one.step} had ended")
