"""What the tests of power cuts share: a folder in memory, a log that is short, so that it begins anew often, and a book.

The long run writes into the book, `.cache/power.jsonl`, how much each test has tried: one JSON object a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dq.store import store
from tests.power.sweep import workshop

BOOK = Path(__file__).parents[2] / ".cache" / "power.jsonl"


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


@pytest.fixture
def book(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Notes what a test of the long run has tried, by name: cuts, images, faults."""

    def note(**counts: int) -> None:
        if request.node.get_closest_marker("soak"):
            BOOK.parent.mkdir(exist_ok=True)
            with BOOK.open("a") as file:
                file.write(json.dumps({"test": request.node.name, **counts}) + "\n")

    return note
