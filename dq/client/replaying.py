"""Replays one run in this process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dq.client.recording import Shelf
from dq.executor import current, functions, script
from dq.flow.player import Delivery, Player
from dq.model.states import RUN_FINAL
from dq.store.reader import Reader

if TYPE_CHECKING:
    from dq.client.recording import Recording
    from dq.flow.player import HistoryRow
    from dq.flow.verdict import Verdict


class Tape:
    """All that is on record of one run, in memory.

    Example:
        tape = Tape.read("movie.db", "movie-1")
        verdict = tape.play(tape.resolve)
    """

    def __init__(self, shelf: Shelf, recording: Recording, db: str) -> None:
        self.recording = recording
        self._defines = shelf.defines
        self._salt = shelf.salt
        self._folder = f"{db}.blobs"
        self._rows: list[HistoryRow] = [row for rows in shelf.steps(recording) for row in rows]

    @classmethod
    def read(cls, db: str | os.PathLike[str], id: str) -> Tape:
        """Reads a run, and closes the file again. Raises NoSuchRun, StoreError."""
        path = os.path.abspath(os.fspath(db))
        with Reader.open(path) as reader:
            shelf = Shelf(reader)
            return cls(shelf, shelf.find(id), path)

    def resolve(self) -> Callable[..., Any]:
        """The workflow's function. Raises NotImportable."""
        return functions.recorded(self.recording.define.name, self.recording.define.code)

    def play(self, find: Callable[[], Callable[..., Any]], hear: Callable[[Delivery], None] | None = None) -> Verdict:
        """Runs the workflow's function from the record.

        Args:
            find: Gives the function.
            hear: Called with each completion, before the code goes on.
        """
        current.settle(self._salt)
        player = Player(self.recording.told, self._defines, self._rows, find, self._folder, hear)
        verdict = player.play()
        if self.recording.state in RUN_FINAL:
            verdict = replace(verdict, same=player.matches(self.recording.state, self.recording.payload))
        player.leave()
        return verdict


@contextlib.contextmanager
def visiting(recording: Recording) -> Iterator[None]:
    """For the time of a block, the recorded script is this process's `__main__`, and the recorded path can be imported from."""
    context = recording.context
    path, main, home = list(sys.path), sys.modules.get("__main__"), sys.modules.get(script.NAME)
    sys.path += [folder for folder in context.path if folder not in sys.path]
    try:
        if context.script and recording.define.name.startswith(f"{functions.MAIN}:"):
            with current.importing():
                script.load(context.script)
        yield
    finally:
        sys.path[:] = path
        for name, module in (("__main__", main), (script.NAME, home)):
            if module is not None:
                sys.modules[name] = module
