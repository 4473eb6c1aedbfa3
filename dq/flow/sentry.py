"""The sentry: sees a workflow that holds up its host, and with it all other runs there.

It looks from the control thread twice a second. A run that is running, asks for nothing and hears of nothing between two
looks a second apart is sleeping, waiting for the network, or computing: what belongs into a step.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from types import FrameType
from typing import TYPE_CHECKING

from dq.executor import current
from dq.executor.frames import Notice
from dq.flow import context
from dq.flow.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from dq.flow.host import Host

PATIENCE = 1.0  # seconds
PLACES_MAX = 100  # places that one host tells of

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OTHERS = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")})

Mark = tuple[int, int, int, int]


class Sentry:
    """Looks at what the host's main thread is at. `look` is called with each beat, in another thread.

    Args:
        host: The host.
        clock: Seconds that only go forward.
    """

    def __init__(self, host: Host, clock: Callable[[], float] = time.monotonic) -> None:
        self._host = host
        self._clock = clock
        self._mark: Mark | None = None
        self._told: Mark | None = None
        self._since = 0.0
        self._places: set[tuple[str, int]] = set()

    def look(self) -> Notice | None:
        """What should be told, once for each place in the code."""
        run = context.running
        mark = self._progress(run) if isinstance(run, Run) and not current.IN_TEMPLATE else None
        if mark is None or mark != self._mark:
            self._mark, self._since = mark, self._clock()
            return None
        seconds = self._clock() - self._since
        if seconds < PATIENCE or mark == self._told or len(self._places) >= PLACES_MAX:
            return None
        frame = sys._current_frames().get(self._host.thread)
        if frame is None or context.running is not run or _is_own(frame):
            return None  # dq itself waits: for ids, for room on the disk
        place = _place(frame)
        if place in self._places:
            return None
        self._places.add(place)
        self._told = mark
        assert isinstance(run, Run)
        return Notice(
            f"the workflow of run {run.name!r} has held up its host for {seconds:.1f} s at {place[0]}:{place[1]}, and all "
            "other runs there wait as long. Put what takes time into a step; for a pause use dq.sleep"
        )

    def _progress(self, run: Run) -> Mark | None:
        """What changes when a run gets on; None where it does just now."""
        try:
            return id(run), run.journal.now, self._host.ids.given, run.journal.size
        except RuntimeError:  # the main thread changes a dict that is being counted
            return None


def _is_own(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OWN)


def _place(frame: FrameType) -> tuple[str, int]:
    """The innermost line that is neither dq's nor the standard library's nor an installed package's."""
    found: FrameType | None = frame
    while found is not None:
        file = found.f_code.co_filename
        if not (file.startswith((_OWN, "<")) or file.startswith(_OTHERS)):
            return file, found.f_lineno
        found = found.f_back
    return frame.f_code.co_filename, frame.f_lineno
