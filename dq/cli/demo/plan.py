"""Which processes the demo kills, and when: drawn once from a seed, before anything runs."""

from __future__ import annotations

import random
from typing import NamedTuple

KINDS = ("worker", "host", "template", "supervisor")
LEAST = len(KINDS)  # kills below which some kind would be spared
_FIRST, _LAST = 0.02, 0.92  # the part of the run over which kills are spread


class Strike(NamedTuple):
    """One kill to come. `aimed` asks for the moment between the begin and the end of a body."""

    due: float  # fraction of the steps that must be done before
    kind: str
    aimed: bool


def draw(kills: int, seed: int) -> list[Strike]:
    """Draws a plan: every kind at least once, most of them workers, half of those (rounded up) aimed at a body.

    >>> [strike.kind for strike in draw(4, seed=1) if strike.aimed]
    ['worker']
    """
    if not kills:
        return []
    if kills < LEAST:
        raise ValueError(f"{kills} kills can't reach each of {LEAST} kinds of process")
    rng = random.Random(seed)
    kinds = ["supervisor"] * max(1, kills // 8) + ["host"] * max(1, kills // 6) + ["template"] * max(1, kills // 12)
    workers = kills - len(kinds)
    aims = [index < (workers + 1) // 2 for index in range(workers)]
    targets = [("worker", aimed) for aimed in aims] + [(kind, False) for kind in kinds]
    rng.shuffle(targets)
    step = (_LAST - _FIRST) / kills
    return [Strike(_FIRST + step * (index + rng.random()), kind, aimed) for index, (kind, aimed) in enumerate(targets)]
