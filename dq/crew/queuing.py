"""What clients ask of queues: how they stand, and to change them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dq.crew.gates import Limits, describe
from dq.executor import frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dq.crew.clients import Client, Clients
    from dq.crew.gates import Queue
    from dq.crew.supervisor import Supervisor

AS_IT_IS = -1


class Queuing:
    """Answers clients. A change is on disk before they hear of it."""

    def __init__(self, supervisor: Supervisor, clients: Clients) -> None:
        self._sup = supervisor
        self._clients = clients
        self.handlers: dict[type, Callable[[Client, Any], None]] = {
            frames.SetQueue: self._set, frames.ListQueues: self._list,
        }  # fmt: skip

    def _set(self, client: Client, message: frames.SetQueue) -> None:
        queue = self._sup.queues.queue(message.name)
        paused = queue.paused if message.paused == AS_IT_IS else bool(message.paused)
        by_hand = None if message.default else queue.by_hand
        changes = [new if new != AS_IT_IS else old for new, old in zip(message.limits, queue.limits, strict=True)]
        if not message.default and message.limits != (AS_IT_IS,) * 4:
            by_hand = Limits(*changes)
        if (paused, by_hand) != (queue.paused, queue.by_hand):
            self._sup.queues.change(queue, paused, by_hand)
        self._clients.answer(client, frames.Done(message.ticket, _sentence(queue)))

    def _list(self, client: Client, message: frames.ListQueues) -> None:
        if self._sup.committer.dirty:
            self._sup.committer.commit()
        names = [message.name] if message.name else sorted(self._sup.queues.by_name)
        look = self._live if self._sup.options.workers else self._on_record
        self._clients.answer(client, frames.QueueStates(message.ticket, list(look(names))))

    def _live(self, names: list[str]) -> Iterator[frames.QueueState]:
        for name in names:
            queue = self._sup.queues.queue(name)
            gates = list(queue.gates.values())
            firsts = {segment.first for gate in gates for segment in gate.heads()}
            waiting, running = sum(gate.waiting for gate in gates), sum(gate.running for gate in gates)
            yield _state(queue, waiting, running, self._sup.store.oldest(firsts) if waiting else 0)

    def _on_record(self, names: list[str]) -> Iterator[frames.QueueState]:
        """Who has no workers keeps nothing in order; what waits is in the file."""
        store, functions = self._sup.store, self._sup.ledger.functions
        spans = [span for batch in store.open_batches() for span in store.open_functions(*batch)]
        spans += [span for _run, *span in store.open_flow_functions()]  # type: ignore[misc]
        for name in names:
            queue = self._sup.queues.queue(name)
            its = [span for span in spans if functions[span[0]].queue is queue]
            yield _state(queue, sum(span[3] for span in its), 0, store.oldest(span[1] for span in its))


def _state(queue: Queue, waiting: int, running: int, oldest_at: int) -> frames.QueueState:
    by_hand = queue.by_hand is not None
    return frames.QueueState(queue.name, waiting, running, queue.paused, by_hand, queue.limits[:4], oldest_at)


def _sentence(queue: Queue) -> str:
    state = "is paused" if queue.paused else "is open"
    source = ", set by hand" if queue.by_hand is not None else ""
    unknown = "" if queue.code is not None else "; no step has named it so far"
    return f"queue {queue.name} {state}; {describe(queue.limits)}{source}{unknown}"
