"""What the supervisor asks of the file, for those who only read it."""

from __future__ import annotations

import apsw

from dq.store.surveys import Surveys


class Archive(Surveys):
    """The record as it is, over a connection that can't write. It does not see what a supervisor has not committed."""

    def __init__(self, opened: apsw.Connection, path: str) -> None:
        self._opened = opened
        self._path = path

    def _connected(self) -> apsw.Connection:
        return self._opened
