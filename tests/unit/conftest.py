"""What unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dq.executor.current import running


@pytest.fixture(autouse=True)
def no_body_runs() -> Iterator[None]:
    """Tests call the envelope in this process, which a worker never leaves: it does not take back what it has set."""
    yield
    running.set(None)
