"""The client: an engine that does no work itself."""

from __future__ import annotations

import os

from dq.client.engine import Engine


class Client(Engine):
    """What another process holds to start, signal, cancel and look at runs, and to submit steps.

    It has all that an engine has, and no workers: the work is done by whoever works on the file, now (`dq up`, an engine
    in another process) or later. What it hands over is on disk when its calls return, also while nobody is at work.

    Args:
        path: The database file; it is made if there is none, its folder is not.
        signing_key: As for Engine.

    Example:
        with dq.Client("movie.db") as client:
            client.signal("movie-1", "approve", {"by": "Ada"})
    """

    def __init__(self, path: str | os.PathLike[str], *, signing_key: bytes | os.PathLike[str] | None = None) -> None:
        super().__init__(path, workers=0, signing_key=signing_key)
