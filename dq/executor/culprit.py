"""Finds what in a value can't be pickled, so that the error can name it."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

_DEPTH = 40  # a path longer than this tells nobody anything
_TRIALS = 2000  # objects that are pickled in search of the culprit


def explain(value: Any, label: str, error: BaseException) -> str:
    """One line that names the path to the culprit, such as `result.rows[3].lock: cannot pickle 'lock' object`.

    Args:
        value: What could not be pickled.
        label: What to call it. "arguments" stands for a tuple (args, kwargs).
        error: What pickling it raised.
    """
    if isinstance(error, RecursionError) or isinstance(error.__context__, RecursionError):
        return f"{_too_deep(value, label)}: nested too deeply to be pickled ({error}); hand over a flatter structure"
    path, reason = label, error
    budget = _TRIALS
    for _ in range(_DEPTH):
        for step, child in _children(value, path if path == "arguments" else ""):
            budget -= 1
            trouble = _trouble(child)
            if trouble is not None:
                path, value, reason = (step if path == "arguments" else path + step), child, trouble
                break
            if budget <= 0:
                return f"{path}: {_text(reason)}"
        else:
            break
    return f"{path}: {_text(reason)}"


def _too_deep(value: Any, label: str) -> str:
    """Which argument it is. Further down every path is endless, and tells nobody anything."""
    if label == "arguments":
        for step, child in _children(value, label):
            if _trouble(child) is not None:
                return step
    return label


def _text(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    usual = isinstance(error, (pickle.PicklingError, TypeError, AttributeError))
    return text if usual else f"{type(error).__name__}: {text}"


class _Nowhere(io.RawIOBase):
    """Takes a pickle and keeps nothing, so that trying out large values costs no memory."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return len(data)


def _trouble(value: Any) -> BaseException | None:
    import cloudpickle

    if value is None or isinstance(value, (str, bytes, int, float)):
        return None
    try:
        cloudpickle.Pickler(_Nowhere(), protocol=5).dump(value)
    except Exception as error:  # noqa: BLE001 -- users' __reduce__ may raise anything
        return error
    return None


def _children(value: Any, root: str) -> Iterator[tuple[str, Any]]:
    """What a value holds, each with how one gets there."""
    if root and isinstance(value, tuple) and len(value) == 2:
        yield from ((f"args[{index}]", item) for index, item in enumerate(value[0]))
        yield from ((f"kwargs[{key!r}]", item) for key, item in value[1].items())
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[{key!r:.60}]", item
            yield f" key {key!r:.60}", key
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((f"{{{item!r:.60}}}", item) for item in value)
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, FunctionType):
        yield from _captured(value)
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        yield from ((f".{name}", item) for name, item in attributes.items())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield f".{name}", getattr(value, name)


def _captured(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function that travels by value takes along."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f" (closes over {name})", cell.cell_contents
        except ValueError:  # an empty cell
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f" (uses the global {name})", function.__globals__[name]
    yield from ((f" (default {index})", item) for index, item in enumerate(function.__defaults__ or ()))
