"""The process pool keeps the contract."""

from __future__ import annotations

from dq.testing import ExecutorContract


class TestProcess(ExecutorContract):
    spec = "process:2"
