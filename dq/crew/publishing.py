"""What runs publish, for those who look from outside while a run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dq.executor import frames
from dq.model.states import RUN_FINAL

if TYPE_CHECKING:
    from dq.crew.clients import Client
    from dq.crew.supervisor import Supervisor

PAGE = 500  # events in one answer


class Publishing:
    """Answers those who read, at once or with the next event. A question may be repeated: it says where its asker is."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._committer = supervisor.committer
        self._followers: dict[int, list[tuple[Client, frames.Follow]]] = {}

    def read(self, client: Client, message: frames.Published) -> None:
        """The latest value of a key."""
        if self._committer.dirty:
            self._committer.commit()
        rows = self._sup.store.last_published(message.run, message.key)
        self._sup.clients.answer(client, frames.Events(message.ticket, rows, ""))

    def follow(self, client: Client, message: frames.Follow) -> None:
        """What was published since, or the next thing that will be."""
        if not self._answer(client, message):
            self._followers.setdefault(message.run, []).append((client, message))

    def _answer(self, client: Client, message: frames.Follow) -> bool:
        if self._committer.dirty:
            self._committer.commit()
        rows = self._sup.store.published_since(message.run, message.after, PAGE)
        record = self._sup.store.run_by_id(message.run)
        over = record is None or record.state in RUN_FINAL
        if not rows and not over:
            return False
        state = record.state if over and record is not None and len(rows) < PAGE else ""
        self._sup.clients.answer(client, frames.Events(message.ticket, rows, "gone" if record is None else state))
        return True

    def news(self, run: int) -> None:
        """A run has published something, or ended: whoever follows it is told once that is on disk."""
        if run in self._followers:
            self._committer.then.append(lambda: self._tell(run))

    def _tell(self, run: int) -> None:
        waiting = self._followers.pop(run, [])
        left = [(client, message) for client, message in waiting if client.peer.fd in self._sup.clients.all]
        for client, message in left:
            self.follow(client, message)
