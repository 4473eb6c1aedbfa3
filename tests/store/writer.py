"""A supervisor in small, to be killed: commits groups with effects, syncs, and acknowledges each with a line.

Run as `writer.py DATABASE ACKS GROUPS`. Exits with 3 when the store says that the disk failed.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from dq.errors import StoreError
from dq.store.group import Group
from dq.store.guard import Statement
from dq.store.store import Store

ROWS = 3  # steps of a group
_TABLE = "CREATE TABLE IF NOT EXISTS effect (first INTEGER PRIMARY KEY)"
_ROW = "INSERT INTO effect VALUES (?)"


def main(path: str, acks: str, groups: int) -> int:
    out = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        store = Store.open(path)
        boot = store.boot("boot-1")
        os.write(out, b"boot %d\n" % boot.epoch)
        for number in range(groups):
            first = boot.epoch * 1000 + number * ROWS
            ids = range(first, first + ROWS)
            token = boot.epoch << 40 | number
            group = Group(
                lease_to=first + ROWS,
                batches=[(first, first + ROWS - 1)],
                steps=[(id, 1, b"args", 0) for id in ids],
                claims=[(token, 0, 1, "[]", 0)],
                results=[(id, None, "completed", 1, token, 1, 0, 0, b"result") for id in ids],
                closed_claims=[(token,)],
            )
            statements = [Statement(_TABLE, ()), Statement(_ROW, (first,), 1)]
            store.commit_effects(statements, partial(_same, group))
            store.sync()
            os.write(out, b"%d\n" % first)
            if number == 1:
                store.checkpoint()
        store.close(clean=True)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


def _same(group: Group) -> Group:
    return group


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
