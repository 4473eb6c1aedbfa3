"""What is on record of a run, in the frames that a host would get of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from dq.errors import NoSuchRun
from dq.executor.frames import Assign, Context, Define
from dq.store.reader import Reader

if TYPE_CHECKING:
    from dq.flow.player import HistoryRow
    from dq.store.reads import RunRecord

PAGE = 1000  # recorded steps read at a time


class Recording(NamedTuple):
    """A run on record.

    Attributes:
        told: What a host is told of it.
        define: Its workflow.
        context: Where its code comes from.
        state: In which state it is.
        payload: What it came to, b"" where it has not ended.
    """

    told: Assign
    define: Define
    context: Context
    state: str
    payload: bytes

    @property
    def name(self) -> str:
        return self.told.name


class Shelf:
    """The recordings of a file, read-only. Use it as a context manager around `Reader.open`.

    Args:
        reader: The open file.
        places: Pairs of folders: what was recorded below the first is looked for below the second.
    """

    def __init__(self, reader: Reader, places: list[tuple[str, str]] | None = None) -> None:
        self._archive = reader.archive()
        self._places = places or []
        self.salt = self._archive.salt()
        self.contexts = {
            row.id: self._moved(Context(row.python, row.script, row.cwd, tuple(json.loads(row.path)), ""))
            for row in self._archive.contexts()
        }
        functions = self._archive.functions()
        self.homes = {row.id: row.context for row in functions}
        self.defines = {
            row.id: Define(
                row.id,
                row.name,
                row.kind,
                row.digest,
                row.code or b"",
                row.executor,
                row.max_crashes,
                row.options or b"",
            )
            for row in functions
        }

    def unfinished(self) -> list[Recording]:
        """Runs that are running or blocked, oldest first."""
        return [self._recording(record) for record in self._archive.unfinished_runs()]

    def find(self, name: str) -> Recording:
        """The run of an id. Raises NoSuchRun."""
        record = self._archive.find_run(name)
        if record is None:
            raise NoSuchRun(f"there is no run {name!r} in the file; `dq ls` lists those that are")
        return self._recording(record)

    def steps(self, recording: Recording) -> Iterator[list[HistoryRow]]:
        """Its recorded steps behind its last checkpoint, page by page."""
        record = self._archive.run_by_id(recording.told.run)
        after = record.checkpoint or 0 if record is not None else 0
        while page := self._archive.run_page(recording.told.run, after, PAGE):
            after = page[-1].id
            rows: list[HistoryRow] = [*page]
            yield rows

    def _recording(self, record: RunRecord) -> Recording:
        args, chapter, began, origin = record.args, 0, record.created_at, ""
        if record.origin:
            id, at, name = record.origin.split(" ", 2)
            began, origin = int(at), f"{id} {name}"
        if record.checkpoint:
            args, chapter, began = self._archive.checkpoint_at(record.checkpoint)
        cancel = (record.cancel_seq, record.cancel_at or 0, record.cancel_cause or "") if record.cancel_seq else None
        due = record.scheduled_at or 0
        told = Assign(record.id, record.name, record.function, args, began, cancel, chapter, due, origin)
        context = self.contexts[self.homes[record.function]]
        return Recording(told, self.defines[record.function], context, record.state, record.payload or b"")

    def _moved(self, context: Context) -> Context:
        move = self._move
        path = tuple(map(move, context.path))
        return Context(context.python, move(context.script), move(context.cwd), path, context.source)

    def _move(self, path: str) -> str:
        for old, new in self._places:
            if path == old or path.startswith(old.rstrip("/") + "/"):
                return os.path.normpath(new + path[len(old.rstrip("/")) :])
        return path
