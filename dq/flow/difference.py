"""The difference between what is recorded of a step and what the code asks for now, for a person to read."""

from __future__ import annotations

import inspect
import reprlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from dq.flow.fingerprint import fingerprint

_ADVICE = (
    "Nothing is lost. Undo the change of the code, or have old runs take the old way with dq.patched, and let the run go "
    "on: `dq resume ID`. Or go on with the new code in a copy: `dq fork ID --from STEP`."
)
_LINES = 8  # differences that are shown
_DEPTH = 12

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_short.maxlong = 60
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 8


def explain(where: str, name: str, recorded: Any, now: tuple[tuple[Any, ...], dict[str, Any]]) -> str:
    """The reason for which a run is blocked.

    Args:
        where: Which step of which branch.
        name: The step, as the record calls it.
        recorded: The recorded (args, kwargs), or the exception that reading them raised.
        now: What the code asks for: (args, kwargs).
    """
    lines = [f"The code asks for step {where}, with other arguments than are recorded."]
    if isinstance(recorded, BaseException):
        lines.append(f"  recorded: can't be read here ({type(recorded).__name__}: {recorded})")
        lines.append(f"  now:      {call(name, *now)}")
    else:
        lines.append(f"  recorded: {call(name, *recorded)}")
        lines.append(f"  now:      {call(name, *now)}")
        found = list(islice(_differences(recorded, now), _LINES + 1))
        lines += [f"  {line}" for line in found[:_LINES]]
        if len(found) > _LINES:
            lines.append("  and more")
    return "\n".join([*lines, _ADVICE])


def misfit(body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError) -> str:
    """The reason for which a run is blocked whose workflow does not take the recorded arguments any more."""
    name = getattr(body, "__qualname__", repr(body))
    try:
        now = str(inspect.signature(body))
    except (TypeError, ValueError):
        now = "(...)"
    return (
        f"The workflow does not take the arguments that are recorded ({error}).\n"
        f"  recorded: {call(name, args, kwargs)}\n  now:      {name}{now}\n{_ADVICE}"
    )


def show(value: Any) -> str:
    """A bounded repr that never raises."""
    try:
        return _short.repr(value)
    except Exception as error:  # noqa: BLE001 -- a repr of the user's must not get in the way
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def trace(error: BaseException | None) -> str:
    """An exception with its traceback, from the user's first line on."""
    if error is None:
        return ""
    found = error.__traceback__
    while found is not None and str(found.tb_frame.f_globals.get("__name__", "")).startswith("dq."):
        found = found.tb_next
    return "".join(traceback.format_exception(type(error), error, found or error.__traceback__)).rstrip()


def call(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """A call as text, bounded."""
    name = name.partition(" at ")[0].rpartition(":")[2].rpartition(".")[2]
    shown = [show(value) for value in args] + [f"{key}={show(value)}" for key, value in kwargs.items()]
    return f"{name}({', '.join(shown)})"


def _differences(before: Any, now: Any) -> Iterator[str]:
    for index, (old, new) in enumerate(zip(before[0], now[0], strict=False)):
        yield from _walk(f"args[{index}]", old, new, _DEPTH)
    if len(before[0]) != len(now[0]):
        yield f"{len(before[0])} positional arguments -> {len(now[0])}"
    yield from _mappings("", before[1], now[1], _DEPTH)


def _walk(path: str, old: Any, new: Any, depth: int) -> Iterator[str]:
    """The innermost places at which two values differ."""
    if fingerprint((old,), {}) == fingerprint((new,), {}):
        return
    inner = list(islice(_inside(path, old, new, depth - 1), _LINES + 1)) if depth and type(old) is type(new) else []
    if inner:
        yield from inner
        return
    told = (show(old), show(new))
    if told[0] == told[1] or type(old) is not type(new):
        told = (f"{told[0]} ({type(old).__name__})", f"{told[1]} ({type(new).__name__})")
    yield f"{path}: {told[0]} -> {told[1]}"


def _inside(path: str, old: Any, new: Any, depth: int) -> Iterator[str]:
    if isinstance(old, (list, tuple)):
        for index, (left, right) in enumerate(zip(old, new, strict=False)):
            yield from _walk(f"{path}[{index}]", left, right, depth)
        if len(old) != len(new):
            yield f"{path}: {len(old)} items -> {len(new)}"
    elif isinstance(old, dict):
        yield from _mappings(path, old, new, depth)
    elif isinstance(old, (set, frozenset)):
        yield f"{path}: only recorded {show(old - new)}, only now {show(new - old)}"
    elif hasattr(old, "__dict__"):
        for name, value in vars(old).items():
            yield from _walk(f"{path}.{name}", value, getattr(new, name, None), depth)


def _mappings(path: str, old: Mapping[Any, Any], new: Mapping[Any, Any], depth: int) -> Iterator[str]:
    for key, value in old.items():
        place = f"{path}[{show(key)}]" if path else str(key)
        if key in new:
            yield from _walk(place, value, new[key], depth)
        else:
            yield f"{place}: {show(value)} -> (not given)"
    for key, value in new.items():
        if key not in old:
            yield f"{f'{path}[{show(key)}]' if path else key}: (not given) -> {show(value)}"
