"""What tests of whole processes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import dq


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[dq.Engine]:
    """An engine with two workers, on a file of its own."""
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        yield engine
