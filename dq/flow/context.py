"""Which run is running in this thread, if any: what makes a plain call of a step a durable one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dq.flow.decorators import Step
    from dq.flow.future import Future


class Flow(Protocol):
    """A run as the decorators see it."""

    id: int
    name: str

    def call(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...
    def submit(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]: ...
    def map(self, step: Step[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]: ...
    def draw(self) -> bytes: ...


# Set by a host around the code of a run. A host runs all its runs in one thread, so this needs no lock.
running: Flow | None = None
