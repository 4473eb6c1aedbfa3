"""The functions that a host's runs ask for: each gets a number of this host's when it is first used."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple

from dq.executor import functions, signing
from dq.executor.frames import Define
from dq.executor.options import SUPERVISOR
from dq.flow.decorators import Step, Workflow


class Function(NamedTuple):
    """A step as a run's journal knows it."""

    registry: Registry
    number: int
    name: str


class Registry:
    """Numbers steps and introduces them through `send`."""

    def __init__(self, send: Callable[[Define], None]) -> None:
        self._send = send
        self._numbers: dict[bytes, int] = {}
        self._builtins: dict[str, Function] = {}
        self._by_name: dict[tuple[Any, ...], Function] = {}

    def builtin(self, name: str) -> Function:
        """The number of something that the supervisor itself ends."""
        known = self._builtins.get(name)
        if known is None:
            digest = functions.digest(name, b"", "step", SUPERVISOR, 1)
            number = self._numbers[digest] = len(self._numbers) + 1
            self._send(Define(number, name, "step", digest, b"", SUPERVISOR, 1))
            known = self._builtins[name] = Function(self, number, name)
        return known

    def find(self, step: Step[..., Any] | Workflow[..., Any]) -> Function:
        """The number and the name of a step or a child workflow. Raises NotPicklable for one that can't travel."""
        known = step.registered
        if known is not None and known.registry is self:
            return known
        # `step.options(priority=5)` is a new object with each call, and the same function on record.
        same = _definition(step) if step.has_term else None
        if same is not None and (known := self._by_name.get(same)) is not None:
            return known
        message = signing.introduce(define(len(self._numbers) + 1, step))
        number = self._numbers.get(message.digest)
        if number is None:
            number = self._numbers[message.digest] = message.number
            self._send(message)
        function = step.registered = Function(self, number, message.name)
        if same is not None and not message.code:
            self._by_name[same] = function
        return function


def _definition(step: Step[..., Any] | Workflow[..., Any]) -> tuple[Any, ...] | None:
    """What is the same for all calls of a step; None where that has no hash."""
    same = (step.__dq_body__, step.settings.definition)
    try:
        hash(same)
    except TypeError:
        return None
    return same


def define(number: int, function: Step[..., Any] | Workflow[..., Any]) -> Define:
    """The frame that introduces a decorated function with its options. Raises NotPicklable.

    One that has a name of its own travels by value under that name, as a pickle that refers to it where that will do,
    since its name does not lead to it.
    """
    kind, executor, crashes = function.kind, function.executor, function.max_crashes
    options = function.settings.pack(source_of(function) if kind == "workflow" else "")
    if not function.name:
        return functions.define(number, function, kind=kind, executor=executor, max_crashes=crashes, options=options)
    told = functions.describe(function)
    code = told.code or pickle.dumps(_Reference(told.name), 5)
    script = functions.main_script() if told.name.startswith(f"{functions.MAIN}:") else ""
    whole = code + script.encode(errors="surrogatepass")
    digest = functions.digest(function.name, whole, kind, executor, crashes, options=options)
    return Define(number, function.name, kind, digest, code, executor, crashes, options)


def source_of(function: Any) -> str:
    """A hash of the text of a function, or of a decorated one, "" where that is not at hand."""
    import inspect

    try:
        text = inspect.getsource(functions.body_of(function))
    except (OSError, TypeError):
        return ""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def is_reference(code: bytes) -> bool:
    """Whether a function that travels by value is found by name all the same, since it has a name of its own."""
    return len(code) < 1024 and functions.__name__.encode() in code and b"resolve" in code


class _Reference:
    """Pickles as a function that is imported by name where the pickle is loaded."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> Any:
        return functions.resolve, (self._name, b"")
