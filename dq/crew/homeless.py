"""Runs that are to be given to a host."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dq.crew.ledger import Run


class Homeless(dict[int, "Run"]):
    """By id, and by context: runs whose code can't be imported are in nobody's way, and counting them costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._contexts: dict[int, dict[int, Run]] = {}
        self._context_of: dict[int, int] = {}  # as it was when the run came; its function may be another by now

    def __setitem__(self, id: int, run: Run) -> None:
        self.pop(id, None)
        super().__setitem__(id, run)
        context = self._context_of[id] = run.function.context
        self._contexts.setdefault(context, {})[id] = run

    def __delitem__(self, id: int) -> None:
        super().__delitem__(id)
        context = self._context_of.pop(id)
        del self._contexts[context][id]
        if not self._contexts[context]:
            del self._contexts[context]

    def pop(self, id: int, default: Run | None = None) -> Run | None:  # type: ignore[override]
        """Takes a run out, if it is here."""
        if id not in self:
            return default
        run = self[id]
        del self[id]
        return run

    @property
    def contexts(self) -> set[int]:
        """The contexts that these runs want a host of."""
        return set(self._contexts)

    def of(self, context: int, count: int) -> list[Run]:
        """The first of a context, at most so many."""
        return list(islice(self._contexts.get(context, {}).values(), count))
