"""Functions on the wire: by name where they can be imported, by value where they can't."""

from __future__ import annotations

import importlib
import os
import pickle
import struct
import sys
from collections.abc import Callable
from hashlib import blake2b
from types import CodeType
from typing import Any, NamedTuple

from dq.errors import NotImportable, NotPicklable
from dq.executor import current, script, signing
from dq.executor.frames import Define
from dq.model.names import NAME_MAX
from dq.model.screen import safe

MAIN = "__main__"
# Instances of the script's classes are pickled in workers under the name that the script has there.
script.alias()


class Description(NamedTuple):
    """A function as it travels."""

    name: str  # "module:qualname"; a label where there is code
    code: bytes  # cloudpickle, or b"" for a function that travels by name


def describe(function: Any) -> Description:
    """How a function, or a decorated one, travels.

    By name if `module:qualname` leads to the same object; a function of `__main__` only where a script file stands
    behind it. Everything else (lambdas, closures, bound methods, functions of a notebook) by value.

    Raises:
        NotPicklable: The function travels by value and holds something that can't.

    >>> describe(os.path.join)
    Description(name='posixpath:join', code=b'')
    """
    body = body_of(function)
    if not callable(body):
        raise NotPicklable(f"{function!r} is not callable, so it can't be a step or a workflow")
    name = _importable_name(function, body)
    if name:
        return Description(name, b"")
    return Description(_label(body), _by_value(body))


def body_of(function: Any) -> Any:
    """The user's plain function behind a decorated object; the function itself otherwise."""
    return getattr(function, "__dq_body__", function)


def main_script() -> str:
    """The absolute path of the script behind `__main__`, "" in a notebook or an interactive session."""
    path = getattr(sys.modules[MAIN], "__file__", None)
    return os.path.abspath(path) if path and os.path.isfile(path) else ""


def digest(
    name: str, code: bytes, kind: str, executor: str, max_crashes: int, path: str = "", options: bytes = b""
) -> bytes:
    """Identifies a function and its options; the script's `path` counts for functions of `__main__` only."""
    path = path if name.startswith(f"{MAIN}:") else ""
    fields: list[str | bytes] = [name, code, kind, executor, str(max_crashes), path]
    if options:
        fields.append(options)
    hashed = blake2b(digest_size=16)
    for field in fields:
        data = field if isinstance(field, bytes) else field.encode(errors="surrogatepass")
        hashed.update(struct.pack("<Q", len(data)) + data)
    return hashed.digest()


def define(
    number: int, function: Any, *, kind: str, executor: str = "", max_crashes: int = 3, options: bytes = b""
) -> Define:
    """The frame that introduces a function under the sender's number. Raises NotPicklable."""
    name, code = describe(function)
    mark = digest(name, code, kind, executor, max_crashes, main_script(), options)
    return Define(number, name, kind, mark, code, executor, max_crashes, options)


def recorded(name: str, code: bytes) -> Callable[..., Any]:
    """The same as `resolve` for what comes from the file. Raises NotImportable, SignatureMismatch."""
    return resolve(name, signing.content(signing.CODE, code, name.encode()) if code else code)


def resolve(name: str, code: bytes) -> Callable[..., Any]:
    """The plain function behind a name or a pickle; imports what it needs.

    Raises:
        NotImportable: The module can't be imported here, has no such function, or the pickle does not load.
    """
    with current.importing():
        found = _load(name, code) if code else _import(name)
    body = body_of(found)
    if not callable(body):
        raise NotImportable(f"{name} is a {type(body).__name__} here, not a function")
    return body  # type: ignore[no-any-return]


def _importable_name(function: Any, body: Any) -> str:
    module, qualname = getattr(body, "__module__", None), getattr(body, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or "<" in qualname:
        return ""
    if len(module) + len(qualname) > NAME_MAX or safe(module + qualname) != module + qualname:
        return ""
    module = MAIN if module == script.NAME else module
    if module == MAIN and not main_script():
        return ""
    found: Any = sys.modules.get(module)
    try:
        for part in qualname.split("."):
            found = getattr(found, part)
    except AttributeError:
        return ""
    return f"{module}:{qualname}" if found is function or body_of(found) is body else ""


def _label(body: Any) -> str:
    name = safe(str(getattr(body, "__name__", None) or f"{type(body).__name__} object"))[:NAME_MAX]
    code = getattr(body, "__code__", None)
    if not isinstance(code, CodeType):
        return name
    return f"{name} at {os.path.basename(code.co_filename)}:{code.co_firstlineno}"


def _by_value(body: Any) -> bytes:
    import cloudpickle

    from dq.executor.culprit import explain

    try:
        return bytes(cloudpickle.dumps(body, protocol=5))
    except Exception as error:
        raise NotPicklable(explain(body, _label(body), error)) from error


def _load(name: str, code: bytes) -> Any:
    try:
        return pickle.loads(code)
    except Exception as error:
        raise NotImportable(
            f"{name} travelled by value and does not load here: {type(error).__name__}: {error}. {_where()}"
        ) from error


def _import(name: str) -> Any:
    module, _, qualname = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise NotImportable(
            f"module {module} of {name} can't be imported here: {type(error).__name__}: {error}. {_where()}"
        ) from error
    try:
        for part in qualname.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        place = getattr(found, "__file__", None) or module
        raise NotImportable(
            f"{name} is recorded, but {place} has no {qualname}; it was renamed, removed, or is made only when the "
            "module runs as a script. Put it back, or leave an alias under the old name"
        ) from error
    return found


def _where() -> str:
    paths = ", ".join(repr(entry) for entry in sys.path[:12]) + (", ..." if len(sys.path) > 12 else "")
    return (
        f"This is {sys.executable} with sys.path {paths}. Install the module there, or put its folder on the path "
        "(PYTHONPATH) before the engine is opened"
    )
