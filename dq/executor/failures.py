"""Failures: what a payload keeps of an exception, and how much of it comes back."""

from __future__ import annotations

import pickle
import traceback
from types import TracebackType

import msgspec

from dq.errors import DamagedPayload, StepError
from dq.executor import script, signing
from dq.model.payload import FAILURE, HEAD, SIGNED, seal, unseal

_TEXT_MAX = 64 << 10  # characters of an exception's text and of its traceback
_PICKLE_MAX = 4 << 20  # bytes; an exception that holds more arrives as a StepError


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """What a failure payload tells. Everything but `pickled` can be shown without running anybody's code."""

    type_name: str  # "builtins" is left out: "ValueError", "shop.errors:Declined" is "shop.errors.Declined"
    text: str
    traceback: str
    pickled: bytes  # b"" where the exception itself can't travel


_decoder = msgspec.msgpack.Decoder(Failure)


class RemoteTraceback(Exception):
    """The `__cause__` of an exception that was raised in another process: its traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def read(payload: bytes) -> Failure:
    """What a failure payload tells, without unpickling. Raises DamagedPayload."""
    tag, body = unseal(payload)
    if tag != FAILURE:
        raise DamagedPayload("a payload holds a value where a failure is expected")
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedPayload(f"a payload should tell a failure and does not: {error}") from error


def pack(error: BaseException) -> bytes:
    """The payload that tells an exception. Never raises an Exception."""
    type_name = _type_name(error)
    return _seal(Failure(type_name, _text(error), _traceback(error, type_name), _pickled(error)))


def restore(payload: bytes) -> BaseException:
    """The exception, or a StepError that stands for it. Raises DamagedPayload, SignatureMismatch for one that is signed."""
    if payload[HEAD.size : HEAD.size + 1] == SIGNED:
        raise signing.keyless()
    told = read(payload)
    error: BaseException | None = None
    if told.pickled:
        try:
            error = pickle.loads(told.pickled)
        except Exception:  # noqa: BLE001 -- what is told must never get in the way of telling
            error = None
    if not isinstance(error, Exception):
        error = StepError(told.type_name, told.text, told.traceback)
    if told.traceback:
        error.__cause__ = RemoteTraceback(told.traceback)
    return error


def _seal(failure: Failure) -> bytes:
    return seal(FAILURE, msgspec.msgpack.encode(failure))


def _type_name(error: BaseException) -> str:
    kind = type(error)
    module = str(getattr(kind, "__module__", ""))
    module = "__main__" if module == script.NAME else module
    return _clean(kind.__qualname__ if module in ("builtins", "") else f"{module}.{kind.__qualname__}")


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as trouble:  # noqa: BLE001 -- what is told must never get in the way of telling
        return f"<its text can't be had: str() raised {type(trouble).__name__}>"
    return _clean(text)


def _traceback(error: BaseException, type_name: str) -> str:
    try:
        lines = traceback.TracebackException(type(error), error, _theirs(error.__traceback__), compact=True).format()
        return _clean("".join(lines))
    except Exception as trouble:  # noqa: BLE001 -- what is told must never get in the way of telling
        return _clean(f"{type_name}; its traceback can't be had: {type(trouble).__name__}")


def _theirs(frames: TracebackType | None) -> TracebackType | None:
    """Leaves out the frames of this package that lead to the user's code."""
    found = frames
    while found is not None and str(found.tb_frame.f_globals.get("__name__", "")).startswith("dq.executor."):
        found = found.tb_next
    return found or frames


def _clean(text: str) -> str:
    """Bounded, and fit for UTF-8."""
    if len(text) > _TEXT_MAX:
        half = _TEXT_MAX // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _pickled(error: BaseException) -> bytes:
    """The exception as a pickle that is known to load again, else b""."""
    if not isinstance(error, Exception):
        return b""  # what ends a process here must not end the one that waits for the result
    for dump in (_plain, _by_value):
        try:
            data = dump(error)
            if len(data) <= _PICKLE_MAX and type(pickle.loads(data)) is type(error):
                return data
        except Exception:  # noqa: BLE001 -- what is told must never get in the way of telling
            continue
    return b""


def _plain(error: Exception) -> bytes:
    return pickle.dumps(error, 5)


def _by_value(error: Exception) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps(error, protocol=5))
