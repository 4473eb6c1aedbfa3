"""A client that signs: the same connection, whose steps take the codec's way and not the short one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dq.client import origin
from dq.client.connection import Connection
from dq.executor import signed

if TYPE_CHECKING:
    from dq.client.launcher import Launcher
    from dq.client.steps import Ordered, StepFuture
    from dq.flow.settings import Settings


def connect(launcher: Launcher) -> Connection:
    """The connection of an engine, with the key that its launcher has. Raises StoreError, SupervisorLost."""
    codec = signed.make(f"{launcher.db}.blobs", launcher.signer)
    return (Connection if launcher.signer is None else Signed)(launcher, codec, origin.here())


class Signed(Connection):
    """A connection whose codec signs."""

    def send(
        self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any], entry: StepFuture[Any] | Ordered,
        settings: Settings | None = None,
    ) -> int:  # fmt: skip
        if self.gate or self._is_full():
            self._throttle()
        id = self.next_id()
        payload = self.arguments(args, kwargs, id)
        self.heavy += len(payload)
        if settings is not None:
            self.terms[id] = settings.term(id, args, kwargs)
        self.rows.append((id, entry, number, payload))
        if self.asleep:
            self.wake()
        return id
