"""Where the user code of this process comes from, as a template needs to know it."""

from __future__ import annotations

import os
import sys

from dq.executor.frames import Context
from dq.executor.functions import main_script
from dq.executor.script import source_hash


def here(script: str | None = None) -> Context:
    """The context of this process.

    Args:
        script: The file that functions of `__main__` come from; the running script by default.
    """
    script = main_script() if script is None else os.path.abspath(script)
    cwd = os.getcwd()
    path = tuple(os.path.abspath(entry) for entry in dict.fromkeys(sys.path))
    return Context(sys.executable, script, cwd, path, source_hash(script))
