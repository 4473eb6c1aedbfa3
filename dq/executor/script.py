"""A script as a module: how its functions are had without running it as a program."""

from __future__ import annotations

import hashlib
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dq.executor.frames import Context

NAME = "__dq_main__"


def load(path: str) -> types.ModuleType:
    """Runs a script's text under the name `__dq_main__`, so that `if __name__ == "__main__":` holds its program back.

    The module stands in sys.modules under that name and as `__main__`, so that what was pickled by the running script
    is found, and the other way round.

    Raises:
        OSError: the file can't be read.
        SyntaxError, Exception: what the script's own text raises.
    """
    module = types.ModuleType(NAME)
    module.__file__ = path
    folder = str(Path(path).resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    before = sys.modules.get("__main__")
    sys.modules[NAME] = sys.modules["__main__"] = module
    try:
        code = compile(Path(path).read_bytes(), path, "exec")
        exec(code, module.__dict__)
    except BaseException:
        if before is not None:
            sys.modules["__main__"] = before
        raise
    return module


def enter(context: Context) -> None:
    """Makes this process ready to import what a context's functions need, and imports its script."""
    os.chdir(context.cwd)
    sys.path[:] = context.path
    if context.script:
        sys.argv[:] = [context.script]
        load(context.script)


def alias() -> None:
    """Lets this process find what workers pickled: their `__dq_main__` is its `__main__`."""
    sys.modules.setdefault(NAME, sys.modules["__main__"])


def source_hash(path: str) -> str:
    """What tells one text of a script from another; "" where there is no script or it can't be read.

    >>> source_hash("")
    ''
    """
    if not path:
        return ""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""
