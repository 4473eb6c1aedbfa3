"""Random workflows under attack come to what arithmetic says, and no promise is broken on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dq.cli.chaos import plan
from dq.cli.chaos.programs import Program
from tests.chaos.arena import arena
from tests.chaos.strategies import PROGRAMS

BATCH = st.lists(PROGRAMS, min_size=1, max_size=8)


def _many(play: Callable[[Sequence[tuple[str, Program]]], None], examples: int) -> None:
    """Plays so many batches. What fails under an attack need not fail again, so nothing is made smaller."""

    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        deadline=None,
    )
    @given(BATCH)
    def each_batch(batch: list[tuple[str, Program]]) -> None:
        play(batch)

    each_batch()


def test_random_programs_under_attack(tmp_path: Path) -> None:
    with arena(tmp_path, seed=5, rate=4.0, faults=10) as made:
        _many(made.play, 4)


_STORMS = {"all": plan.KINDS, "members": ("worker", "host"), "supervisor": ("supervisor",), "stops": ("stop", "worker")}


@pytest.mark.soak
@pytest.mark.parametrize("storm", _STORMS)
def test_thousands_of_programs_under_attack(tmp_path: Path, storm: str) -> None:
    seed = int.from_bytes(os.urandom(3), "little")
    rate = 1.0 if storm == "supervisor" else 5.0
    with arena(tmp_path, seed, rate, _STORMS[storm]) as made:
        _many(made.play, 200)
