"""Steps and workflows that tests of replay share."""

from __future__ import annotations

from typing import Any

import dq


@dq.step
def double(n: int) -> int:
    return 2 * n


@dq.step
def fail(text: str) -> None:
    raise ValueError(text)


@dq.workflow
def chain(count: int) -> int:
    total = 0
    for n in range(count):
        total += double(n)
    return total


@dq.workflow
def both(a: int, b: int) -> list[Any]:
    first, second = double.submit(a), double.submit(b)
    seen = [(first.done(), second.done())]
    result = first.result()
    seen.append((first.done(), second.done()))
    return [result, second.result(), seen]


@dq.workflow
def fan(count: int) -> list[int]:
    return double.map(range(count))
