"""epoll with a handler for each descriptor."""

from __future__ import annotations

import select
from collections.abc import Callable

Handler = Callable[[int], None]


def _nothing(_mask: int) -> None:
    pass


class Poller:
    """Calls `handler(mask)` for each descriptor that is ready."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}

    def register(self, fd: int, handler: Handler | None = None, mask: int = select.EPOLLIN) -> None:
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler or _nothing

    def handle(self, fd: int, handler: Handler) -> None:
        """Gives a registered descriptor another handler."""
        self._handlers[fd] = handler

    def modify(self, fd: int, mask: int) -> None:
        self._epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def poll(self, timeout: float | None) -> bool:
        """Waits at most `timeout` seconds, handles what is ready, and tells whether anything was.

        A handler may be called for a descriptor that was closed and given out again in the same turn; so each one
        looks for itself whether there is something to do.
        """
        events = self._epoll.poll(timeout)
        for fd, mask in events:
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(mask)
        return bool(events)
