"""Which faults there are, and when: drawn from a seed, whatever happens meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

KINDS = ("worker", "host", "template", "supervisor", "group", "stop")
_WEIGHTS = {"worker": 8, "host": 4, "template": 1, "supervisor": 1, "group": 1, "stop": 3}
_LONG = 0.25  # part of the stops that last longer than a worker may be silent


class Fault(NamedTuple):
    """One fault to come.

    Attributes:
        due: Seconds from the beginning.
        kind: One of KINDS.
        draw: In [0, 1): which one of several.
        span: For a stop: its length, as a part of the time after which a worker counts as hung.
    """

    due: float
    kind: str
    draw: float
    span: float


def draw(seed: int, rate: float, kinds: Sequence[str] = KINDS) -> Iterator[Fault]:
    """Draws faults without end, `rate` a second: one of each kind at first, then by weight.

    >>> [fault.kind for fault, _ in zip(draw(1, 2.0), range(6))]
    ['host', 'group', 'worker', 'stop', 'supervisor', 'template']
    """
    rng = random.Random(seed)
    first = [*kinds]
    rng.shuffle(first)
    due = 0.0
    weights = [_WEIGHTS[kind] for kind in kinds]
    while True:
        due += rng.expovariate(rate)
        drawn = rng.choices(kinds, weights)[0]
        kind = first.pop() if first else drawn
        part = rng.random()
        span = 1.2 + part if rng.random() < _LONG else 0.02 + 0.4 * part
        yield Fault(due, kind, rng.random(), span)
