"""What a run needs of whoever runs it: a host, or a player that only looks what it would do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import greenlet as switching

    from dq.executor.codec import Codec
    from dq.executor.frames import Block, Finish, Term
    from dq.flow.registry import Registry
    from dq.flow.run import Run

StepRow = tuple[int, int, int, str, int, bytes, bytes]  # the shape of a row of `frames.Steps`


class Numbers(Protocol):
    """Where the ids of new steps come from."""

    def take(self) -> int: ...


class Home(Protocol):
    """All its methods but `end` are called in the greenlet of the run that is concerned."""

    @property
    def codec(self) -> Codec: ...
    @property
    def greenlet(self) -> switching.greenlet: ...
    @property
    def thread(self) -> int: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def ids(self) -> Numbers: ...
    def workflow(self, run: Run) -> Callable[..., Any]: ...
    def more(self, run: int) -> None: ...
    def write(self, row: StepRow, term: Term | None) -> None: ...
    def withdraw(self, run: int, step: int) -> None: ...
    def end(self, run: Run, message: Finish | Block) -> None: ...
