"""What an interpreter that ends does with engines and executors that are still open."""

from __future__ import annotations

import atexit
import logging
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dq.client.connection import Connection

_open: weakref.WeakSet[Connection] = weakref.WeakSet()


def watch(line: Connection) -> None:
    """Sees to it that the connection says goodbye, at the latest when the interpreter ends."""
    _open.add(line)


@atexit.register
def _leave() -> None:
    for line in list(_open):
        try:
            if line.is_mine:
                if line.drains:
                    line.wait_idle()
                line.close()
        except Exception:
            logging.getLogger("dq").exception("what was submitted last may not be on disk")
