"""Finds executors: those of dq and those of third parties come through the same door."""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING, NamedTuple

from dq.errors import BadExecutor
from dq.executor.contract import Executor
from dq.executor.slots import ENTRIES

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "dq.executors"
# Half of a slot's entries are for what is finished and not yet sent.
SLOTS_MAX = ENTRIES // 2


class Spec(NamedTuple):
    """What "process:4" says."""

    name: str  # of an entry point, or "package.module:Class"
    size: int
    argument: str


class Found(NamedTuple):
    """One row of what is installed."""

    name: str
    target: str  # "package.module:Class"
    capabilities: tuple[str, ...]
    error: str  # why it can't be used, or ""


def parse(spec: str) -> Spec:
    """Reads NAME[:SIZE[:ARGUMENT]], where NAME may be package.module:Class.

    Without a size it is the number of processors that this process may use.

    Raises:
        BadExecutor: The spec says something else.

    >>> parse("process:4")
    Spec(name='process', size=4, argument='')
    >>> parse("mine.pool:Pool:2:tcp://host:8786")
    Spec(name='mine.pool:Pool', size=2, argument='tcp://host:8786')
    """
    name, *rest = spec.split(":")
    if rest and rest[0].isidentifier():
        name = f"{name}:{rest.pop(0)}"
    size = rest.pop(0) if rest else str(len(os.sched_getaffinity(0)))
    if not all(part.isidentifier() for part in name.replace(":", ".").replace("-", "_").split(".")):
        raise BadExecutor(f"{spec!r} names no executor; write NAME:SIZE, such as process:4 or package.module:Class:4")
    if not (size.isascii() and size.isdecimal()) or int(size) < 1:
        raise BadExecutor(f"{spec!r} asks for a size of {size!r}; it must be a whole number from 1 on, as in {name}:4")
    return Spec(name, int(size), ":".join(rest))


@functools.cache
def load(name: str) -> type[Executor]:
    """The executor of a name: an entry point of the group "dq.executors", or package.module:Class.

    The answer is kept, so a template that asks once spares its children the search.

    Raises:
        BadExecutor: There is none, or it can't be imported; the message says which command helps.
    """
    try:
        found = _import(name) if ":" in name else _entry_point(name).load()
    except ModuleNotFoundError as error:
        raise BadExecutor(
            f"executor {name} needs the module {error.name}, which is not installed. {_remedy(name)}"
        ) from error
    except (Exception, SystemExit) as error:
        if isinstance(error, BadExecutor):
            raise
        raise BadExecutor(f"executor {name} can't be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Executor)):
        raise BadExecutor(f"executor {name} is {found!r}, which is no subclass of dq.executor.contract.Executor")
    return found


def make(spec: str) -> Executor:
    """A new executor for one member, not yet started.

    Raises:
        BadExecutor: The spec is wrong, there is no such executor, or it refuses the size or the argument.
    """
    name, size, argument = parse(spec)
    kind = load(name)
    try:
        width = kind.slots(size)
        executor = kind(size, argument)
    except Exception as error:
        raise BadExecutor(f"executor {spec} can't be made: {type(error).__name__}: {error}") from error
    if not 1 <= width <= SLOTS_MAX:
        raise BadExecutor(f"executor {spec} would run {width} bodies at once in one process; {SLOTS_MAX} is the most")
    return executor


def available() -> list[Found]:
    """Every executor that is installed, sorted by name; broken ones say why."""
    found: list[Found] = []
    for name, point in sorted(_entry_points().items()):
        try:
            kind = load(name)
        except BadExecutor as error:
            found.append(Found(name, point.value, (), str(error)))
        else:
            names = tuple(str(flag.name).lower() for flag in kind.capabilities)
            found.append(Found(name, point.value, names, ""))
    return found


def _import(name: str) -> object:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def _entry_point(name: str) -> EntryPoint:
    points = _entry_points()
    if name not in points:
        known = ", ".join(sorted(points)) or "none"
        raise BadExecutor(f"there is no executor {name!r}; installed: {known}. {_remedy(name)}")
    return points[name]


def _remedy(name: str) -> str:
    if name in ("process", "thread"):
        return "It comes with dq: `pip install --force-reinstall dq-durable`"
    return f"If it is one of dq's, `pip install 'dq-durable[{name}]'` brings it; else install the package that has it"
