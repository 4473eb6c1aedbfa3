"""Thousands of histories, each led by one number: whatever dies, hangs, comes late or is cut off, the promises hold.

DQ_HISTORY=17 .venv/bin/python -m pytest tests/simulation -k one_history -s   # plays one, and prints its trace
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.play import History, play
from tests.sweeps import tally

ROOT = Path(__file__).resolve().parents[2]
# What chance must have met in every sweep; what it never meets is not tested.
WINDOWS = (
    "a client hung up", "a host died in a run", "a hung worker was killed", "a late result was refused and counted",
    "a power cut", "a power cut took something unsynced", "a queue was full", "a step was cancelled",
    "a stopped worker came back", "a template died", "a timer fired", "a worker outlived its supervisor for a moment",
    "asked again", "died after begin", "died after the effect, before the result", "died before begin",
    "died with a result unsent or half sent", "gave back", "half a frame was sent", "submitted again",
    "the supervisor died after commit", "the supervisor died after sync", "the supervisor died before commit",
    "the supervisor died before sync", "the wall clock was set",
)  # fmt: skip


def told(history: History) -> str:
    """A failure, and how to see it again."""
    return (
        f"history {history.number}: {type(history.error).__name__}: {history.error}\n"
        f"DQ_HISTORY={history.number} .venv/bin/python -m pytest tests/simulation -k one_history -s"
    )


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.soak)])
def test_the_promises_hold_in_every_history(count: int) -> None:
    began, met, bad = time.monotonic(), Counter[str](), list[str]()
    for number in range(count):
        history = play(number)
        met += history.sometimes
        if history.error is not None:
            bad.append(told(history))
    tally("simulated runs", count, seeds=f"0-{count - 1}", began=began, wrong=len(bad))
    assert not bad, "\n".join(bad[:10])
    assert not [window for window in WINDOWS if not met[window]]


def test_one_history() -> None:
    """The one that DQ_HISTORY names, with its trace."""
    history = play(int(os.environ.get("DQ_HISTORY", "0")), keep=True)
    sys.stdout.write("\n".join(history.trace) + "\n")
    if history.error is not None:
        raise history.error


def test_a_number_leads_to_the_same_history_again() -> None:
    """In another process too, whose strings have other hashes."""
    script = (
        "from pytest import MonkeyPatch\n"
        "from tests.simulation import conftest, play\n"
        "conftest.by_itself.__wrapped__(MonkeyPatch())\n"
        "print(*[play.play(number).digest for number in range(100, 104)])"
    )
    env = dict(os.environ, PYTHONHASHSEED="7", PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [play(number).digest for number in range(100, 104)]
