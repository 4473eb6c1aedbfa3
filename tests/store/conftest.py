"""Fixtures of the store's tests: a path, and a store that has booted on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.store.store import Store
from tests.store import rows
from tests.store.tracing import strace

__all__ = ["path", "store", "strace"]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "f.db")


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    """A store that has booted, with the functions of `rows`."""
    opened = Store.open(path)
    opened.boot("boot-1")
    opened.commit(rows.functions())
    yield opened
    opened.close(clean=False)
