"""The conformance suite for executors, for those of dq and for yours.

    # test_my_executor.py
    from dq.testing import ExecutorContract

    class TestMine(ExecutorContract):
        spec = "mine.pool:Pool:4"

and pytest runs it. It drives real member processes with real frames, and kills some of them; it needs no supervisor and
no database.

`replay` is for tests of workflows: it runs a recorded run again against the code that is on disk.
"""

from __future__ import annotations

import pytest

_PARTS = ("bound", "working", "failing", "leaving", "crashing", "rig")
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from dq.flow.verdict import Verdict  # noqa: E402 -- only what is imported later is rewritten
from dq.testing.replaying import replay  # noqa: E402 -- the same
from dq.testing.suite import ExecutorContract  # noqa: E402 -- the same

__all__ = ["ExecutorContract", "Verdict", "replay"]
