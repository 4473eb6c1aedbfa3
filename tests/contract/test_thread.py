"""The thread pool keeps the contract."""

from __future__ import annotations

from dq.testing import ExecutorContract


class TestThread(ExecutorContract):
    spec = "thread:3"
