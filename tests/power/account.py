"""How much a sweep tries: a little for every run of the tests, more in the long one; and the record of it."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest

from tests.power.sweep import Tally
from tests.sweeps import tally

STATES, ERRORS = "power-loss states", "I/O errors"


class Size(NamedTuple):
    """How much is tried.

    Attributes:
        seeds: Records, by what they are drawn from.
        deeds: What is done in each of them.
        cuts: How often the power is cut at one moment, about.
        share: Of the moments.
    """

    seeds: range
    deeds: int
    cuts: int
    share: float


def sizes(few: Size, many: Size, *, at_once: int) -> pytest.MarkDecorator:
    """A test of a few, and for the long run tests of so many records each, which end within two minutes."""
    seeds = many.seeds
    parts = [many._replace(seeds=seeds[at : at + at_once]) for at in range(0, len(seeds), at_once)]
    long = [pytest.param(part, marks=pytest.mark.soak, id=f"from {part.seeds[0]}") for part in parts]
    return pytest.mark.parametrize("size", [pytest.param(few, id="few"), *long])


class Account:
    """Adds up what a test tries, and closes with the assertion that nothing was found."""

    def __init__(self, sweep: str = STATES) -> None:
        self.count = 0
        self.findings: list[str] = []
        self._sweep = sweep
        self._began = time.monotonic()

    def add(self, tried: Tally, what: object) -> bool:
        """Counts the states of one record; returns whether to go on."""
        return self.tried(tried.images, tried.findings, what)

    def tried(self, count: int, findings: list[str], what: object) -> bool:
        """Counts so many; `what` repeats them. Returns whether to go on."""
        self.count += count
        self.findings += [f"{what}: {finding}" for finding in findings]
        return not findings

    def close(self, seeds: range, least: int) -> None:
        """Tells of it. `least`: fewer would mean that the sweep itself is broken."""
        told = f"{seeds[0]}-{seeds[-1]}"
        tally(self._sweep, self.count, seeds=told, began=self._began, wrong=len(self.findings))
        assert not self.findings, "\n".join(self.findings)
        assert self.count >= least
