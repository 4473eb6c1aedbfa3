"""Many calls of one function as one step, for `Executor.map(..., chunksize=N)`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from itertools import islice
from typing import Any

from dq.executor import functions

Chunk = tuple[str, bytes, list[tuple[Any, ...]]]


def cut(function: Any, items: Iterator[tuple[Any, ...]], size: int) -> Iterator[Chunk]:
    """The arguments of `run`, a chunk at a time. Raises NotPicklable."""
    name, code = functions.describe(function)
    while part := list(islice(items, size)):
        yield name, code, part


def run(name: str, code: bytes, items: list[tuple[Any, ...]]) -> list[Any]:
    """In a worker: calls the function for each item."""
    function = functions.resolve(name, code)
    if inspect.iscoroutinefunction(function):
        return [asyncio.run(function(*item)) for item in items]
    return [function(*item) for item in items]
