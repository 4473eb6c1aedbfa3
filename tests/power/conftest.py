"""What the tests of power cuts share: a folder in memory, and a log that is short, so that it begins anew often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.store import store
from tests.power.sweep import workshop


@pytest.fixture(autouse=True)
def short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOG_SIZE", 200_000)
    monkeypatch.setattr(store, "ROOM_MIN", 0)
    monkeypatch.setattr(store, "CHECKPOINT_PAGES", 60)
    monkeypatch.setattr(store, "CHECKPOINT_STEP", 20)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for the disk, `place`/live, and for what power cuts leave of it."""
    with workshop() as folder:
        (folder / "live").mkdir()
        yield folder
