"""What is open between a client and the supervisor: steps without a result, questions without an answer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dq.client.ask import Ask
from dq.client.launcher import revive
from dq.client.outbox import Outbox
from dq.client.steps import Ordered, StepFuture
from dq.errors import GuardMissing
from dq.executor import frames
from dq.executor.frames import encode
from dq.model.states import CANCELLED, COMPLETED

if TYPE_CHECKING:
    from dq.executor.codec import Codec

log = logging.getLogger("dq")

ADOPT_ROWS = 1 << 16  # ids in one frame

Entry = StepFuture[Any] | Ordered


class Accounts:
    """The pump's books. All methods are for the pump's thread.

    Attributes:
        pending: steps that were sent and have no result yet; others may look at it.
        outbox: what is not known to be on disk.
        in_callbacks: whether futures are being ended, which runs users' callbacks.
    """

    def __init__(self, codec: Codec) -> None:
        self.pending: dict[int, Entry] = {}
        self.outbox = Outbox()
        self.in_callbacks = False
        self._tickets: dict[int, Ask] = {}
        self._watched: dict[int, list[Ask]] = {}
        self._loads = codec.loads
        self._restore = codec.restore

    def is_empty(self) -> bool:
        """Whether all that was submitted or asked has its answer."""
        return not (self.pending or self._tickets or self._watched or len(self.outbox))

    def book(self, ask: Ask) -> bytes:
        """Keeps a question until it is answered; returns its frame."""
        message = ask.message
        if isinstance(message, frames.Watch):
            self._watched.setdefault(message.run, []).append(ask)
            return encode(message)
        self._tickets[ask.ticket] = ask
        return self.outbox.start(ask) if ask.is_start else encode(message)

    def again(self) -> Iterator[bytes]:
        """What a successor must be told. It may know some of it, and nothing is done twice: ids say what is what."""
        yield from self.outbox.again()
        steps = sorted(self.pending.keys() - self.outbox.steps())
        for at in range(0, len(steps), ADOPT_ROWS):
            yield encode(frames.Adopt(steps[at : at + ADOPT_ROWS], []))
        if self._watched:
            yield encode(frames.Adopt([], list(self._watched)))
        sent = self.outbox.asks()
        for ask in self._tickets.values():
            if not ask.is_start:
                yield encode(ask.message)
            elif ask not in sent:
                yield self.outbox.start(ask)

    def on_results(self, message: frames.Results) -> None:
        pop, loads = self.pending.pop, self._loads
        rows = iter(message.rows)
        self.in_callbacks = True
        while True:
            try:
                for id, status, payload, _, _ in rows:
                    entry = pop(id, None)  # None where an earlier supervisor has told it already
                    if isinstance(entry, StepFuture) and status == COMPLETED:
                        entry.resolve(payload, loads)
                    elif entry is not None:
                        self._settle(entry, id, status, payload)
                break
            except BaseException:
                log.exception("a callback of a future failed")
        self.in_callbacks = False

    def _settle(self, entry: Entry, id: int, status: int, payload: bytes) -> None:
        if isinstance(entry, Ordered):
            entry.put(id, status, payload)
        elif status == CANCELLED:
            entry.drop()
        else:
            entry.resolve(payload, self._restore, failed=True)

    def on_cancelled(self, message: frames.CancelDone) -> None:
        self.on_results(frames.Results(0, [(id, CANCELLED, b"", 0, 0) for id in message.steps]))
        self.on_answer(message)

    def on_acked(self, message: frames.Acked) -> None:
        self.outbox.acknowledged(message.frames)

    def on_answer(self, message: Any) -> None:
        ask = self._tickets.pop(message.ticket, None)
        if ask is not None:
            ask.settle(message)

    def on_ended(self, message: frames.Ended) -> None:
        for ask in self._watched.pop(message.run, ()):
            ask.settle(message)

    def on_refused(self, message: frames.Refused) -> None:
        error = revive(message.error, message.text)
        ask = self._tickets.pop(message.ticket, None)
        if ask is not None:
            ask.fail(error)
        elif isinstance(error, GuardMissing):
            raise error  # nothing of this program can run as it is; what it has submitted stays on record
        else:
            log.warning("the supervisor refuses something: %s", error)

    def fail_steps(self, error: BaseException) -> None:
        """No step gets a result any more."""
        self.in_callbacks = True
        for entry in self.pending.values():
            try:
                entry.fail(error)
            except BaseException:
                log.exception("a callback of a future failed")
        self.pending.clear()

    def asks(self) -> list[Ask]:
        """The questions that have no answer."""
        return [*self._tickets.values(), *(ask for asks in list(self._watched.values()) for ask in asks)]
