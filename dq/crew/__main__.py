"""Starts a supervisor: `python -m dq.crew --db F.db`. People use `dq up`; engines start their own."""

from __future__ import annotations

import itertools
import os
import sys

from dq.crew.launches import Launches


def main(words: list[str]) -> int:
    """The first template starts while this process still reads its own code, unless there will be none."""
    launches = Launches(words[words.index("--db") + 1]) if "--db" in words[:-1] else None
    if launches is not None and ("--workers", "0") not in itertools.pairwise(words):
        launches.prepare()
    from dq.crew import boot

    return boot.main(words, launches)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the sync thread may still be there
