"""Which runs are meant by FILE_OR_MODULE or FILE_OR_MODULE:WORKFLOW, by what is recorded of their code."""

from __future__ import annotations

import os
import pickletools
from typing import TYPE_CHECKING

from dq.executor.functions import MAIN
from dq.flow import registry
from dq.model.payload import SIGNATURE, SIGNED

if TYPE_CHECKING:
    from dq.client.recording import Recording


def is_meant(target: str, recording: Recording) -> bool:
    """Whether a target means the code of a run. Nothing is imported for that."""
    place, workflow = split(target)
    module, _, qualname = _code(recording).partition(":")
    if workflow and workflow not in (qualname, recording.define.name):
        return False
    if not is_file(place):
        return module == place
    return os.path.realpath(place) == os.path.realpath(_file(module, recording))


def split(target: str) -> tuple[str, str]:
    """(file or module, workflow or "").

    >>> split("flows.py"), split("flows:movie")
    (('flows.py', ''), ('flows', 'movie'))
    """
    place, mark, workflow = target.rpartition(":")
    return (place, workflow) if mark else (target, "")


def is_file(place: str) -> bool:
    """Whether a target names a file, and not a module."""
    return place.endswith(".py") or os.sep in place


def _code(recording: Recording) -> str:
    """`module:qualname` of a workflow, also of one that has a name of its own."""
    define = recording.define
    if not define.code:
        return define.name
    if registry.is_reference(define.code):  # it is looked at, and not loaded
        texts = (
            text
            for _, text, _ in pickletools.genops(define.code[SIGNATURE if define.code[:1] == SIGNED else 0 :])
            if isinstance(text, str)
        )
        return next((text for text in texts if ":" in text), define.name)
    return ":" + define.name.partition(" at ")[0]


def _file(module: str, recording: Recording) -> str:
    """The file that a module would be imported from; "" where there is none."""
    context = recording.context
    if module in (MAIN, ""):
        return context.script
    parts = module.split(".")
    for folder in context.path:
        stem = os.path.join(folder or context.cwd, *parts)
        for path in (f"{stem}.py", os.path.join(stem, "__init__.py")):
            if os.path.isfile(path):
                return path
    return ""
