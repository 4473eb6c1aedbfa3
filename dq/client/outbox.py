"""What was sent and is not yet known to be on disk: kept, so that it can be sent again to a successor."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, cast

from dq.client.ask import Ask
from dq.executor.frames import HEAD, Resubmit, Submit, Term, decode, encode


class Kept(NamedTuple):
    """A frame that waits for its acknowledgement. `ids` are its steps; a frame that starts a run has none."""

    frame: bytes
    ids: range
    ask: Ask | None


class Outbox:
    """Frames in the order in which they were sent on this connection, which is the order of acknowledgements."""

    def __init__(self) -> None:
        self._kept: deque[Kept] = deque()
        self.size = 0  # bytes

    def __len__(self) -> int:
        return len(self._kept)

    def submit(self, rows: list[tuple[int, int, bytes]], terms: list[Term]) -> bytes:
        """Keeps rows, whose ids are consecutive, with their terms; returns the frame to send."""
        first, last = rows[0][0], rows[-1][0]
        its = [term for term in terms if first <= term.step <= last] if terms else terms
        return self._keep(Kept(encode(Submit(rows, its)), range(first, last + 1), None))

    def start(self, ask: Ask) -> bytes:
        """Keeps the start of a run; returns the frame to send."""
        return self._keep(Kept(encode(ask.message), range(0), ask))

    def _keep(self, kept: Kept) -> bytes:
        self._kept.append(kept)
        self.size += len(kept.frame)
        return kept.frame

    def acknowledged(self, frames: int) -> None:
        """The oldest frames are on disk."""
        for _ in range(min(frames, len(self._kept))):
            self.size -= len(self._kept.popleft().frame)

    def steps(self) -> set[int]:
        """The steps that are not known to be on disk."""
        return {id for kept in self._kept for id in kept.ids}

    def asks(self) -> set[Ask]:
        return {kept.ask for kept in self._kept if kept.ask is not None}

    def again(self) -> Iterator[bytes]:
        """Every frame, as it is sent to a successor; steps may be known to it already, so they say so."""
        for kept in self._kept:
            if kept.ask is not None:
                yield kept.frame
            else:
                sent = cast(Submit, decode(kept.frame[HEAD.size :]))
                yield encode(Resubmit(sent.rows, sent.terms))
