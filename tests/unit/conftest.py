"""What unit tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.client.connection import Connection
from dq.executor.current import running
from tests.unit import scripted
from tests.unit.standin import Standin, connected


@pytest.fixture(autouse=True)
def no_body_runs() -> Iterator[None]:
    """Tests call the envelope in this process, which a worker never leaves: it does not take back what it has set."""
    yield
    running.set(None)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "f.db"


@pytest.fixture
def supervisor(db: Path) -> Iterator[Standin]:
    standin = Standin(db)
    yield standin
    standin.die()


@pytest.fixture
def line(db: Path, supervisor: Standin) -> Iterator[Connection]:
    with connected(db) as connection:
        yield connection


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[scripted.Crew]:
    yield from scripted.crew(tmp_path)
