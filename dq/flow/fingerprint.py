"""Fingerprints: what tells on replay whether a step is asked for with the arguments it was recorded with.

Pickle bytes vary with the hash seed and with which objects are shared, so a fingerprint is a hash of the structure:
each value becomes a type mark and its content; the items of sets and dicts are sorted; values that have no structure
of their own count by the name of their type. Equal structure gives equal bytes in any process.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import functools
import pathlib
import sys
import types
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping
from hashlib import blake2b
from math import isnan
from struct import pack
from typing import Any, cast

SIZE = 16  # bytes
_LONG = 256  # bytes; a longer encoding is replaced by its hash, so memory and time stay bounded
_DEEP = 150  # levels; what lies deeper counts by type
_TANGLED = 50_000  # visits to parts of cycles; arguments that take more count by type


def fingerprint(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """The 16 bytes that stand for a call's arguments. Never raises.

    >>> fingerprint(({1, 2},), {"a": 1, "b": 2}) == fingerprint(({2, 1},), {"b": 2, "a": 1})
    True
    >>> fingerprint((1,), {}) == fingerprint((True,), {})
    False
    """
    out = bytearray()
    writer = None
    try:
        for value in args:
            write = _SCALARS.get(type(value))
            if write is not None:
                write(value, out)
            else:
                writer = writer or _Writer()
                writer.write(value, out)
        if kwargs:
            _keywords(kwargs, writer or _Writer(), out)
    except Exception:  # noqa: BLE001 -- a tangle, a property of the user's that raises, a stack that is full already
        out = bytearray(b"?" + b"".join(map(_type_name, args)))
        for key in sorted(kwargs):
            out += key.encode("utf-8", "surrogatepass") + b"=" + _type_name(kwargs[key])
    return blake2b(out, digest_size=SIZE).digest()


def _keywords(kwargs: Mapping[str, Any], writer: _Writer, out: bytearray) -> None:
    out += b"|"
    for key in sorted(kwargs):
        writer.write(key, out)
        writer.write(kwargs[key], out)


class _Tangle(Exception):
    """So many ways through a cyclic structure that following them all would take for ever."""


class _Writer:
    """Encodes one set of arguments.

    Encodings longer than `_LONG` are hashed whether their value is shared or not, and only those are remembered by
    identity: so sharing saves time but never shows.
    """

    def __init__(self) -> None:
        self._path: dict[int, int] = {}  # id of each container that is being written -> its depth
        # (id, depth or -1) -> the value, kept so that its id stays its own, and its encoding
        self._known: dict[tuple[int, int], tuple[Any, bytes]] = {}
        self._reach = _DEEP  # the least depth to which a cycle led back
        self._cut = False  # whether something deeper than `_DEEP` was left out
        self._tangled = 0

    def write(self, value: Any, out: bytearray) -> None:
        write = _SCALARS.get(type(value))
        if write is not None:
            write(value, out)
        else:
            self._compound(value, out)

    def _compound(self, value: Any, out: bytearray) -> None:
        key, depth = id(value), len(self._path)
        known = self._known.get((key, -1)) or self._known.get((key, depth))
        above = self._path.get(key)
        if known is not None:
            out += known[1]
        elif above is not None:  # a cycle: told by how far up it leads
            self._reach = min(self._reach, above)
            self._tangled += 1
            out += b"^%d;" % (depth - above)
        elif depth >= _DEEP:
            self._cut = True
            out += b"~" + _type_name(value)
        else:
            out += self._whole(value, key, depth)

    def _whole(self, value: Any, key: int, depth: int) -> bytes:
        """The encoding of a container that is met for the first time on this way."""
        reach, self._reach = self._reach, _DEEP
        cut, self._cut = self._cut, False
        content = bytearray()
        self._path[key] = depth
        self._structure(value, content)
        del self._path[key]
        own = bytes(content)
        if len(own) > _LONG:
            own = b"#" + blake2b(own, digest_size=SIZE).digest()
            if self._reach >= depth:
                self._known[key, depth if self._cut else -1] = (value, own)
        if self._reach < depth:
            self._tangled += 1
            if self._tangled > _TANGLED:
                raise _Tangle
        self._reach = min(reach, self._reach)
        self._cut = cut or self._cut
        return own

    def _structure(self, value: Any, out: bytearray) -> None:
        kind = type(value)
        if kind in (list, tuple):
            out += b"l%d;" % len(value) if kind is list else b"t%d;" % len(value)
            self._sequence(value, out)
        elif kind is dict:
            out += b"m%d;" % len(value)
            self._items(value, out)
        elif kind in (set, frozenset):
            out += b"s%d;" % len(value) if kind is set else b"z%d;" % len(value)
            self._sorted(value, out)
        else:
            self._object(value, out)

    def _sequence(self, values: Iterable[Any], out: bytearray) -> None:
        whole = None
        for value in values:
            self.write(value, out)
            if len(out) > 1 << 16:  # a long list is hashed as it goes
                whole = whole or blake2b(digest_size=SIZE)
                whole.update(out)
                out.clear()
        if whole is not None:
            whole.update(out)
            out[:] = whole.digest() * (_LONG // SIZE + 1)  # long enough to be hashed like any long encoding

    def _items(self, value: Mapping[Any, Any], out: bytearray) -> None:
        pairs = []
        for key, item in value.items():
            pair = bytearray()
            self.write(key, pair)
            self.write(item, pair)
            pairs.append(bytes(pair))
        pairs.sort()
        out += b"".join(pairs)

    def _sorted(self, values: Iterable[Any], out: bytearray) -> None:
        parts = []
        for value in values:
            part = bytearray()
            self.write(value, part)
            parts.append(bytes(part))
        parts.sort()
        out += b"".join(parts)

    def _object(self, value: Any, out: bytearray) -> None:
        """Everything that is no plain container: first the type, then what structure there is."""
        out += b"o" + _type_name(value)
        fields = _fields(cast(Hashable, type(value)))
        if fields is not None:
            for name in fields:
                self.write(getattr(value, name, None), out)
        elif isinstance(value, enum.Enum):
            self.write(value.name, out)
        elif isinstance(value, (int, float, str, bytes)):  # a subclass of a scalar: numpy.float64, IntFlag
            _SCALARS[next(base for base in _PLAIN if isinstance(value, base))](value, out)
        elif isinstance(value, (list, tuple)):
            self._sequence(tuple.__iter__(value) if isinstance(value, tuple) else list.__iter__(value), out)
        elif isinstance(value, dict):
            self._items(value, out)
        elif isinstance(value, (set, frozenset)):
            self._sorted(value, out)
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self.write(part, out)
        elif isinstance(value, pathlib.PurePath):
            self.write(str(value), out)
        else:
            self._array(value, out)

    def _array(self, value: Any, out: bytearray) -> None:
        numpy = sys.modules.get("numpy")
        if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
            return  # no structure of its own: the type is all that counts
        array = numpy.asarray(value)
        self.write(str(array.dtype.descr) if array.dtype.names else array.dtype.str, out)
        self.write(array.shape, out)
        if array.dtype.hasobject:
            self._sequence(array.ravel().tolist(), out)
        else:
            out += blake2b(
                numpy.ascontiguousarray(array).data.cast("B") if array.size else b"", digest_size=SIZE
            ).digest()


def _type_name(value: Any) -> bytes:
    kind = type(value)
    return b"%s:%s;" % (_module(kind.__module__), kind.__qualname__.encode())


def _module(name: Any) -> bytes:
    """A script's module has another name where dq imports it."""
    return b"__main__" if name == "__dq_main__" else str(name).encode()


@functools.lru_cache(maxsize=1024)
def _fields(kind: Hashable) -> tuple[str, ...] | None:
    """The names of a dataclass's or an attrs class's fields, without those that its own comparison leaves out."""
    fields = getattr(kind, "__dataclass_fields__", None)
    if isinstance(fields, dict):
        return tuple(name for name, field in fields.items() if field.compare and field._field_type.name == "_FIELD")
    attributes = getattr(kind, "__attrs_attrs__", None)
    if attributes is not None:
        return tuple(attribute.name for attribute in attributes if attribute.eq)
    return None


def _int(value: int, out: bytearray) -> None:
    out += b"i%x;" % value


def _float(value: float, out: bytearray) -> None:
    out += b"d" + (pack("<d", value) if not isnan(value) else b"nan.....")


def _complex(value: complex, out: bytearray) -> None:
    out += b"c"
    _float(value.real, out)
    _float(value.imag, out)


def _str(value: str, out: bytearray) -> None:
    _blob(b"u", value.encode("utf-8", "surrogatepass"), out)


def _bytes(value: bytes, out: bytearray) -> None:
    _blob(b"b", value, out)


def _bytearray(value: bytearray, out: bytearray) -> None:
    _blob(b"a", value, out)


def _view(value: memoryview, out: bytearray) -> None:
    _blob(b"v" + value.format.encode() + b";", value.tobytes(), out)


def _blob(mark: bytes, data: bytes | bytearray, out: bytearray) -> None:
    out += b"%s%d;" % (mark, len(data))
    out += data if len(data) <= _LONG else blake2b(data, digest_size=SIZE).digest()


def _constant(mark: bytes) -> Callable[[Any, bytearray], None]:
    def write(_: Any, out: bytearray) -> None:
        out += mark

    return write


def _text(describe: Callable[[Any], str]) -> Callable[[Any, bytearray], None]:
    def write(value: Any, out: bytearray) -> None:
        _blob(b"x" + _type_name(value), describe(value).encode("utf-8", "surrogatepass"), out)

    return write


def _named(value: Any, out: bytearray) -> None:
    module = _module(getattr(value, "__module__", ""))
    _blob(b"n", module + b":" + getattr(value, "__qualname__", value.__name__).encode(), out)


_PLAIN = (int, float, str, bytes)
_SCALARS: dict[type, Callable[[Any, bytearray], None]] = {
    type(None): _constant(b"N"),
    bool: lambda value, out: out.extend(b"T" if value else b"F"),
    type(Ellipsis): _constant(b"E"),
    int: _int,
    float: _float,
    complex: _complex,
    str: _str,
    bytes: _bytes,
    bytearray: _bytearray,
    memoryview: _view,
    range: _text(repr),
    decimal.Decimal: _text(str),
    fractions.Fraction: _text(str),
    uuid.UUID: _text(str),
    dt.datetime: _text(lambda value: f"{value.isoformat()} {value.fold}"),
    dt.date: _text(dt.date.isoformat),
    dt.time: _text(lambda value: f"{value.isoformat()} {value.fold}"),
    dt.timedelta: _text(repr),
    type: _named,
    types.FunctionType: _named,
    types.BuiltinFunctionType: _named,
    types.ModuleType: _named,
}
