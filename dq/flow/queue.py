"""`dq.Queue`: limits that several steps share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Queue:
    """A name under which steps wait together, and what may run of them at once.

    Args:
        name: The queue's name; the same name is the same queue.
        concurrency: How many of its steps may run at once; None for no limit.
        per_worker: How many of them one worker process may hold at once.
        rate: (n, seconds): no more than n of them begin within so many seconds.
        key: Called with a step's arguments; the limits then hold for each value of it by itself.

    Example:
        api = dq.Queue("api", concurrency=4, rate=(100, 60), key=lambda customer, *rest: customer)

        @dq.step(queue=api)
        def charge(customer: str, cents: int) -> None: ...
    """

    def __init__(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        per_worker: int | None = None,
        rate: tuple[int, float] | None = None,
        key: Callable[..., object] | None = None,
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.per_worker = per_worker
        self.rate = rate
        self.key = key

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """What the limits of a call count by. Raises what `key` raises."""
        return "" if self.key is None else str(self.key(*args, **kwargs))

    def pack(self) -> bytes:
        """What travels with the definition of each of its steps."""
        import msgspec

        rate = self.rate or (0, 0.0)
        return msgspec.msgpack.encode(
            [self.name, self.concurrency or 0, self.per_worker or 0, rate[0], int(rate[1] * 1_000_000)]
        )
