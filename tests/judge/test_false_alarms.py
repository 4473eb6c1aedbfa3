"""The reaper errs: it holds live workers to be hung, hundreds of times, and no step is at work twice or ends twice."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

import dq
from dq.cli.chaos.history import note
from tests.judge import bodies
from tests.judge.scenarios import Scene
from tests.process.crews import rows
from tests.sweeps import tally

WAVE = 40  # steps that are under way at once


def wave(scene: Scene, engine: dq.Engine, first: int) -> None:
    """Steps of a few milliseconds each; all of them come to their right result."""
    numbers = range(first, first + WAVE)
    work, labels = f"wave-{first}", [f"brief-{number}" for number in numbers]
    note(scene.log, "alone", work=work, must=labels)
    futures = [
        engine.submit(bodies.brief, scene.log, label, number) for label, number in zip(labels, numbers, strict=True)
    ]
    engine.flush()
    note(scene.log, "flushed", work=work)
    note(scene.log, "heard", work=work, right=[future.result(120) for future in futures] == [*numbers])


def alarms(scene: Scene) -> int:
    try:
        return os.path.getsize(f"{scene.db}.alarms")
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("count", [40, pytest.param(2_000, marks=pytest.mark.soak)])
def test_false_alarms(tmp_path: Path, count: int) -> None:
    """Each of these workers was alive and in a body. It is killed before its step is anybody else's."""
    scene, began, first = Scene(tmp_path, "nothing"), time.monotonic(), 0
    with scene.supervisor("hasty", "--workers", "2"), dq.Engine(scene.db, workers=2) as engine:
        while alarms(scene) < count:
            wave(scene, engine, first)
            first += WAVE
        Path(f"{scene.db}.calm").touch()
        wave(scene, engine, first)
    found = scene.findings()
    kinds = Counter(finding.kind for finding in found)
    told = {kind: kinds[kind] for kind in ("lost", "repeated", "overlap", "unaccounted")}
    tally("false alarms", alarms(scene), seeds="7", began=began, **told)
    assert found == []
    [(crashed,)] = rows(scene.db, "SELECT count(*) FROM dq_attempt WHERE cause LIKE '%a false alarm%'")
    assert crashed > count // 4, "it was bodies at work that were hit"
