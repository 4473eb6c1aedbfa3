"""Thousands of kills while random programs run: `dq chaos` finds nothing, and the tests' own judge agrees."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.performances import FINDINGS, chaos, told
from tests.judge.checker import judge
from tests.sweeps import tally

_ROUND = 60  # seconds of one performance, each on a file of its own
# kinds, faults a second, how many there must be
_STORMS = {
    "worker kills": ("worker", 50, 5000),
    "supervisor and group kills": ("supervisor,group", 4, 300),
    "kills and stops of any process": ("worker,host,template,supervisor,group,stop", 8, 1500),
}


@pytest.mark.soak
@pytest.mark.parametrize("storm", _STORMS)
def test_kills_by_the_thousand(tmp_path: Path, storm: str) -> None:
    kinds, rate, wanted = _STORMS[storm]
    first = seed = int.from_bytes(os.urandom(3), "little")
    began = time.monotonic()
    met, steps, problems = 0, 0, []
    found: Counter[str] = Counter(dict.fromkeys(FINDINGS, 0))
    while met < wanted:
        words = ["--seconds", str(_ROUND), "--rate", str(rate), "--kinds", kinds, "--seed", str(seed)]
        verdict = told(chaos(tmp_path, *words, "--workers", "2", "--db", f"{seed}.db", "--json", patience=600))
        met += sum(verdict["kills"].values())
        steps += verdict["steps"]
        found.update({finding: verdict[finding] for finding in FINDINGS})
        problems += verdict["problems"] + judge(tmp_path / f"{seed}.db", verdict["history"])
        seed += 1
    tally(storm, met, seeds=f"{first}-{seed - 1}", began=began, **found)
    assert problems == []
    assert steps > 0
    assert not any(found.values())
