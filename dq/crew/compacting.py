"""Makes a file smaller when nobody works on it: `python -m dq.crew.compacting F.db`. People use `dq gc --compact`.

Files could shrink by themselves as rows go, but then each commit would pay for it with pages of its own: 2 % more of them for
small rows, 22 % for payloads of two kilobytes, and a sync costs by its pages. So free pages are used again by what comes, and
are given back when somebody asks.
"""

from __future__ import annotations

import json
import os
import sys

from dq import errors
from dq.crew.ownership import Ownership
from dq.store import place
from dq.store.store import Store


def main(arguments: list[str]) -> int:
    try:
        before, after = compact(*arguments)
        told: dict[str, object] = {"before": before, "after": after}
    except errors.DqError as error:
        told = {"error": type(error).__name__, "text": str(error)}
    sys.stdout.write(json.dumps(told))
    return 1 if "error" in told else 0


def compact(db: str) -> tuple[int, int]:
    """Rewrites the file without its free pages. Returns its size before and after, in bytes.

    Takes about twice the room again while it lasts, and leaves the file as it was if it is killed.

    Raises:
        DatabaseInUse: A supervisor works on the file.
        DiskFull: There is no room.
        StoreError: The file can't be used, or is not there.
    """
    place.check_folder(db)
    if not place.check_file(db):
        raise errors.StoreError(f"there is no database {db}. Check the path.")
    ownership = Ownership(db)
    ownership.take(os.getpid())
    try:
        before = os.path.getsize(db)
        store = Store.open(db, create=False)
        try:
            store.compact()
        finally:
            store.close(clean=True)
        return before, os.path.getsize(db)
    finally:
        ownership.release()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
