"""How far the chaos is: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import abc
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.table import Table

    from dq.cli.chaos.clients import Tally

_LINE_EVERY = 2.0  # seconds between two plain lines


class Display(abc.ABC):
    """Shows a tally. Use it as a context manager."""

    @abc.abstractmethod
    def show(self, tally: Tally, left: float) -> None:
        """Shows how far it is; `left` is how many seconds there are faults still."""

    @abc.abstractmethod
    def say(self, text: str) -> None:
        """Shows a line that stays."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None


def open_display(stream: TextIO, *, quiet: bool) -> Display:
    """The display that fits a stream; a `quiet` one shows nothing where the stream is no terminal."""
    if stream.isatty():
        return _Live(stream)
    return _Silence() if quiet else _Lines(stream)


class _Live(Display):
    """A table of rich."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)

    def show(self, tally: Tally, left: float) -> None:
        self._live.update(_table(tally, left))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()


def _table(tally: Tally, left: float) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{left:.0f} s of faults to come" if left > 0 else "no more faults; the runs go on to their end"
    )
    for heading in ("runs started", "ended", "wrong", *tally.kills):
        table.add_column(heading, justify="right")
    wrong = f"[red]{tally.wrong}[/red]" if tally.wrong else "0"
    table.add_row(str(tally.started), str(tally.ended), wrong, *map(str, tally.kills.values()))
    return table


class _Lines(Display):
    """A line now and then, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = 0.0

    def show(self, tally: Tally, left: float) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _LINE_EVERY
            faults = ", ".join(f"{number} {kind}" for kind, number in tally.kills.items() if number) or "none"
            rest = f"{left:.0f} s to go" if left > 0 else "no more faults"
            self.say(f"chaos: {tally.ended} of {tally.started} runs have ended; faults: {faults}; {rest}")

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class _Silence(Display):
    """Nothing."""

    def show(self, tally: Tally, left: float) -> None:
        return None

    def say(self, text: str) -> None:
        return None
