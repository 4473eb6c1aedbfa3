"""Who is at which step, looked at now and then in the slots file: what of bodies can be seen from outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from dq.cli.chaos.crowd import Crowd, Person, lives


class Watch:
    """Looks at all workers at once, and remembers what it saw last."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._seen: set[tuple[int, int]] = set()
        self._told: set[int] = set()
        self._at: dict[Person, list[tuple[int, int]]] = {}  # (step, epoch) that each was at, the last time

    def look(self) -> Iterator[dict[str, Any]]:
        """What is to be noted: steps seen at work under a claim for the first time, steps at work twice at once."""
        at: dict[int, list[tuple[Person, int]]] = defaultdict(list)
        now = {one: self._crowd.busy(one) for one in self._crowd.everybody() if one.kind == "worker"}
        for person, claims in [*now.items(), *self._outcast(now).items()]:
            for step, epoch in claims:
                at[step].append((person, epoch))
                if (step, epoch) not in self._seen:
                    self._seen.add((step, epoch))
                    yield {"what": "seen", "step": step, "epoch": epoch, "worker": person.pid}
        for step, found in at.items():
            # Who is still at it was at it while the others were looked at.
            still = [person for person, epoch in found if self._is_still(person, step, epoch, known=person in now)]
            if len(found) > 1 and len(still) > 1 and step not in self._told:
                self._told.add(step)
                yield {"what": "overlap", "step": step, "workers": [person.pid for person in still]}

    def _outcast(self, now: dict[Person, list[tuple[int, int]]]) -> dict[Person, list[tuple[int, int]]]:
        """Workers that live on although their slots were taken from them, at what they were at then."""
        lost = {person: claims for person, claims in self._at.items() if person not in now and lives(person)}
        self._at = {**now, **lost}
        return lost

    def _is_still(self, person: Person, step: int, epoch: int, *, known: bool) -> bool:
        return lives(person) and (not known or (step, epoch) in self._crowd.busy(person))
