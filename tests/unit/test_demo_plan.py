"""What the demo kills, drawn before anything runs."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from dq.cli.demo.plan import KINDS, LEAST, draw


@pytest.mark.parametrize("kills", range(LEAST, 60))
def test_every_kind_is_hit_and_half_of_the_workers_are_aimed_at(kills: int) -> None:
    plan = draw(kills, seed=kills)
    counts = Counter(strike.kind for strike in plan)
    assert sum(counts.values()) == kills
    assert set(counts) == set(KINDS)
    assert counts["worker"] >= max(count for kind, count in counts.items() if kind != "worker")
    aimed = [strike.kind for strike in plan if strike.aimed]
    assert aimed == ["worker"] * len(aimed)
    assert counts["worker"] <= 2 * len(aimed) <= counts["worker"] + 1


def test_kills_are_spread_over_the_run() -> None:
    dues = [strike.due for strike in draw(12, seed=3)]
    assert dues == sorted(dues)
    assert dues[0] < 0.2
    assert 0.8 < dues[-1] < 1
    assert max(after - before for before, after in itertools.pairwise(dues)) < 0.25


def test_a_seed_gives_the_same_plan_again() -> None:
    assert draw(20, seed=1) == draw(20, seed=1) != draw(20, seed=2)


def test_no_kills_are_no_plan() -> None:
    assert draw(0, seed=1) == []


@pytest.mark.parametrize("kills", range(1, LEAST))
def test_fewer_kills_than_kinds_are_refused(kills: int) -> None:
    with pytest.raises(ValueError, match="can't reach each"):
        draw(kills, seed=1)
