"""The functions of a connection, numbered by it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import msgspec

from dq.executor import functions
from dq.executor.frames import Define, encode
from dq.flow import registry
from dq.flow.decorators import Step, Workflow

_CACHE_MAX = 4096

Call = tuple[int, tuple[Any, ...], dict[str, Any]]


class Table:
    """Numbers functions, each once, and keeps what introduces them to a supervisor.

    Attributes:
        cache: The numbers of functions whose description can't change. Read it first; a miss goes to `call`.
        frames: The Define frames; that of function N stands at N - 1.
    """

    def __init__(self, introduce: Callable[[Define], Define] = lambda define: define) -> None:
        """`introduce` gives functions their last touch before they are on record."""
        self._introduce = introduce
        self._lock = threading.Lock()
        self._numbers: dict[bytes, int] = {}
        self.cache: dict[Any, int] = {}
        self.frames: list[bytes] = []
        self._names: list[str] = []

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The number of a function, and the arguments to call it with.

        What carries an argument of its own (a partial, a bound method) is taken apart, so that a thousand of them are
        one function with a thousand arguments.

        Raises:
            NotPicklable: It travels by value and can't.
        """
        function, args, kwargs = _apart(function, args, kwargs)
        return self.number(function), args, kwargs

    def number(self, function: Any, kind: str = "step") -> int:
        """The number of a function as a step or a workflow. Raises NotPicklable."""
        if kind == "step" and type(function).__hash__ is not None:
            try:
                known = self.cache.get(_definition(function))
            except TypeError:  # an option of it has no hash
                known = None
            if known is not None:
                return known
        message = self._introduce(_describe(function, kind))
        with self._lock:
            number = self._numbers.get(message.digest)
            if number is None:
                number = len(self.frames) + 1
                self._names.append(message.name)
                self.frames.append(encode(msgspec.structs.replace(message, number=number)))
                self._numbers[message.digest] = number
        if kind == "step" and _is_constant(function, message.code):
            if len(self.cache) >= _CACHE_MAX:
                self.cache.clear()
            with contextlib.suppress(TypeError):
                self.cache[_definition(function)] = number
        return number

    def name(self, number: int) -> str:
        """What the record calls a function."""
        return self._names[number - 1]


def _definition(function: Any) -> Any:
    """What stands for a function in the cache. Calls of a step that say more than their arguments do not find it at once."""
    if isinstance(function, Step) and function.has_term:
        return function.__dq_body__, function.settings.definition
    return function


def _describe(function: Any, kind: str) -> Define:
    if isinstance(function, (Step, Workflow)):
        return registry.define(0, function)
    return functions.define(0, function, kind=kind)


def _is_constant(function: Any, code: bytes) -> bool:
    """Whether the same object will always have the same description.

    What travels by value may change between two calls: a variable that it closes over, a global that it reads.
    """
    if not code:
        kind: Any = type(function)
        return bool(kind.__hash__ is object.__hash__ and kind.__eq__ is object.__eq__)
    body = functions.body_of(function)
    return (
        isinstance(function, FunctionType)
        and body is function
        and not (body.__closure__ or body.__defaults__ or body.__kwdefaults__ or body.__dict__)
        and _is_closed(body.__code__)
    )


def _is_closed(code: CodeType) -> bool:
    """Whether code reads nothing but its arguments."""
    return not code.co_names and all(_is_closed(const) for const in code.co_consts if isinstance(const, CodeType))


def _apart(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Calls that mean the same, down to a function that travels by name if there is one."""
    while True:
        if type(function) is partial:
            args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
            function = function.func
            continue
        inner, owner = _method(function)
        if not isinstance(inner, FunctionType) or functions.describe(inner).code:
            return function, args, kwargs
        return inner, (owner, *args), kwargs


def _method(function: Any) -> tuple[Any, Any]:
    """The plain function that a call leads to, and the object that is its first argument."""
    if isinstance(function, MethodType):
        return function.__func__, function.__self__
    if isinstance(function, (FunctionType, BuiltinFunctionType, type)) or hasattr(function, "__dq_body__"):
        return None, None
    return vars(type(function)).get("__call__"), function
