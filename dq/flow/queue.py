"""`dq.Queue`: limits that several steps share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import timedelta

MOST = 1_000_000_000  # of anything
NAME_MAX = 200  # characters
KEY_MAX = 200  # bytes; of longer ones a checksum stands for the rest


class Queue:
    """A name under which steps wait together, and what may run of them at once.

    Args:
        name: The queue's name; the same name is the same queue.
        concurrency: How many of its steps may run at once, in the whole file; None for no limit.
        per_worker: How many of them one worker may hold at once.
        rate: (n, seconds), or (n, timedelta): no more than n of them begin within so much time, wherever one looks.
        key: Called with a step's arguments; the limits then hold for each value of it (as text) by itself.

    Raises:
        ValueError: A limit makes no sense.

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
        rate: tuple[int, float | timedelta] | None = None,
        key: Callable[..., object] | None = None,
    ) -> None:
        checked(name, concurrency, per_worker, rate)
        if key is not None and not callable(key):
            raise ValueError(f"the key of queue {name!r} is {key!r}; it is called with a step's arguments")
        self.name = name
        self.concurrency = concurrency
        self.per_worker = per_worker
        self.rate = None if rate is None else (rate[0], seconds(rate[1]))
        self.key = key

    def __repr__(self) -> str:
        return f"<dq.Queue {self.name!r}>"

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """What the limits of a call count by. Raises what `key` raises."""
        if self.key is None:
            return ""
        from zlib import crc32

        key = str(self.key(*args, **kwargs)).encode(errors="backslashreplace")
        return key.decode() if len(key) <= KEY_MAX else f"{key[:KEY_MAX].decode(errors='ignore')}~{crc32(key):08x}"

    def pack(self) -> bytes:
        """What travels with the definition of each of its steps."""
        import msgspec

        rate = self.rate or (0, 0.0)
        return msgspec.msgpack.encode(
            [self.name, self.concurrency or 0, self.per_worker or 0, rate[0], int(rate[1] * 1_000_000)]
        )


def checked(name: object, concurrency: object = None, per_worker: object = None, rate: object = None) -> None:
    """Raises ValueError, which says what of a queue makes no sense."""
    if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX or not name.isprintable():
        raise ValueError(f"a queue's name is printable text of up to {NAME_MAX} characters, not {name!r:.80}")
    for word, value in (("concurrency", concurrency), ("per_worker", per_worker)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST):
            raise ValueError(
                f"{word} of queue {name!r} is {value!r}; it is a number of steps, 1 or more. To stop a queue, pause it: "
                f"engine.queue({name!r}).pause()"
            )
    if rate is None:
        return
    sound = isinstance(rate, tuple) and len(rate) == 2 and isinstance(rate[0], int) and 0 < rate[0] <= MOST
    try:
        sound = sound and 0.001 <= seconds(rate[1]) <= MOST  # type: ignore[index]
    except (AttributeError, TypeError):
        sound = False
    if not sound:
        raise ValueError(
            f"rate of queue {name!r} is {rate!r}; it is (n, seconds), such as (100, 60), of a millisecond or more"
        )


def seconds(span: Any) -> float:
    """A span of time, given as seconds or as a timedelta."""
    return float(span) if isinstance(span, (int, float)) else float(span.total_seconds())
