"""How far a run is: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import abc
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

_LINE_EVERY = 2.0  # seconds between two plain lines


class Meter(abc.ABC):
    """Shows the steps done of a run, and what happens meanwhile. Use it as a context manager, from any thread."""

    @abc.abstractmethod
    def update(self, done: int, total: int, note: str = "") -> None:
        """Shows `done` of `total` steps; a total of 0 is not known yet. `note` is a few words on who is at work."""

    @abc.abstractmethod
    def say(self, text: str) -> None:
        """Shows a line that stays."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None


def open_meter(stream: TextIO, title: str, *, quiet: bool = False) -> Meter:
    """The meter that fits a stream.

    Args:
        stream: Where it is shown.
        title: What is measured.
        quiet: Shows nothing where the stream is no terminal.
    """
    if stream.isatty():
        return _Bar(stream, title)
    return _Silence() if quiet else _Lines(stream, title)


class _Bar(Meter):
    """A bar of rich: steps done, rate, time left, and a note."""

    def __init__(self, stream: TextIO, title: str) -> None:
        self._progress = _make_progress(stream)
        self._task = self._progress.add_task(title, total=None, note="", rate="")
        self._began = time.monotonic()

    def update(self, done: int, total: int, note: str = "") -> None:
        seconds = time.monotonic() - self._began
        rate = f"{done / seconds:.0f}/s" if seconds > 0.5 else ""
        self._progress.update(self._task, completed=done, total=total or None, note=note, rate=rate)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()


def _make_progress(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(file=stream),
    )


class _Lines(Meter):
    """A line now and then, for logs and pipes."""

    def __init__(self, stream: TextIO, title: str) -> None:
        self._stream = stream
        self._title = title
        self._began = time.monotonic()
        self._next = self._began
        self._shown = (-1, -1)

    def update(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        ends = done == total and self._shown != (done, total)
        if (now < self._next and not ends) or self._shown == (done, total):
            return
        self._next = now + _LINE_EVERY
        self._shown = (done, total)
        rate = done / max(now - self._began, 1e-3)
        left = f", {(total - done) / rate:.0f} s left" if done and total > done else ""
        self.say(f"{self._title}: {done} of {total or '?'} steps, {rate:.0f}/s{left}{f', {note}' if note else ''}")

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class _Silence(Meter):
    """Nothing."""

    def update(self, done: int, total: int, note: str = "") -> None:
        return None

    def say(self, text: str) -> None:
        return None
