"""Turns values into payloads and back: the one place that pickles what users hand over."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from dq.errors import DamagedPayload, DiskFull, NotPicklable
from dq.executor import blobs, failures, functions, signing
from dq.model.payload import FILE, HEAD, INLINE_MAX, PICKLE, SIGNED, seal, unseal

if TYPE_CHECKING:
    from dq.executor.frames import Define
    from dq.executor.signing import Signer

_ROOM_WAIT = 0.2  # seconds between two tries while the disk is full
_NONE = seal(PICKLE, pickle.dumps(None, 5))
_pack_head, _dumps, _loads = HEAD.pack, pickle.dumps, pickle.loads  # of use for every step
# True where `__main__` is no file. Nobody else can import what was made there, so it travels by value.
_notebook = False


class Large(NamedTuple):
    """A value whose pickle does not fit inline."""

    value: Any
    what: str
    data: bytes
    buffers: list[memoryview]


class Codec:
    """Encodes and decodes payloads.

    Args:
        folder: Where side files go, made at need with mode 0700; None where everything must travel inline.
        patient: Whether a full disk is waited out. So it is where a value would be lost that took long to compute.

    Example:
        codec = Codec("flows.db.blobs")
        payload = codec.dumps(((1, 2), {}), "a123", what="arguments")
        args, kwargs = codec.loads(payload)
    """

    def __init__(self, folder: str | None = None, *, patient: bool = False) -> None:
        global _notebook
        self.folder = folder
        self.mark = b""  # tells the signing key, where there is one
        # The payload of a value that fits inline, or the makings of a side file. Raises NotPicklable.
        self.pack: Callable[..., bytes | Large] = pack
        self._signer: Signer | None = None
        self._patient = patient
        _notebook = not functions.main_script()

    def dumps(self, value: Any, name: str, *, what: str = "result") -> bytes:
        """The payload of a value.

        Args:
            value: Anything that pickle or cloudpickle takes.
            name: Begins the name of the side file, should it come to one: "s123-e456" for the result of step 123 under
                epoch 456, "a123" for the arguments of step 123. A nonce is added.
            what: What error messages call the value; "arguments" for a tuple (args, kwargs).

        Raises:
            NotPicklable: The message names the path to the culprit.
            OSError: The side file can't be written.
        """
        packed = self.pack(value, what)
        return self.place(packed, name) if isinstance(packed, Large) else packed

    def place(self, large: Large, name: str) -> bytes:
        """The payload of what `pack` found too large: a side file, whole and on disk when this returns.

        Raises DiskFull (not where `patient`), OSError.
        """
        if self.folder is None:
            return seal(PICKLE, _dump_by_value(large.value, large.what))
        told = False
        while True:
            try:
                return seal(FILE, blobs.write(self.folder, name, large.data, large.buffers, self._signer))
            except DiskFull as error:
                if not self._patient:
                    raise
                if not told:
                    sys.stderr.write(f"dq: {error} This process (pid {os.getpid()}) waits until there is room.\n")
                    told = True
            time.sleep(_ROOM_WAIT)

    def loads(self, payload: bytes) -> Any:
        """The value in a payload.

        Raises:
            DamagedPayload: It does not match its checksum, its side file is gone, or it tells a failure.
            SignatureMismatch: It is not signed as it should be; nothing was unpickled.
            Exception: Whatever unpickling raises.
        """
        if len(payload) <= 4096:  # the same as below, without its calls
            data = payload[5:]
            if payload[:5] == _pack_head(PICKLE, crc32(data)):
                try:
                    return _loads(data)
                except pickle.UnpicklingError:
                    if data[:1] == SIGNED:
                        raise signing.keyless() from None
                    raise
        if payload[HEAD.size : HEAD.size + 1] == SIGNED:
            raise signing.keyless()
        tag, body = unseal(payload)
        if tag == PICKLE:
            return pickle.loads(body)
        if tag == FILE and self.folder is not None:
            return blobs.read(self.folder, bytes(body))
        if tag == FILE:
            raise DamagedPayload("a payload lies in a side file, and here it is not known in which folder")
        raise DamagedPayload("a payload tells a failure where a value is expected")

    load_call = loads  # for arguments, which a signature tells from other values

    def introduce(self, define: Define) -> Define:
        """A function as it is recorded."""
        return define

    def failure(self, error: BaseException) -> bytes:
        """The payload that tells an exception. Never raises."""
        return failures.pack(error)

    def restore(self, payload: bytes) -> BaseException:
        """The exception that a failure payload tells.

        It has the type of the original where that can travel; else it is a StepError with its type, text and traceback.
        The original's traceback is the `__cause__`, as text.

        Raises:
            DamagedPayload: The payload does not match its checksum or tells no failure.
        """
        return failures.restore(payload)


def pack(value: Any, what: str = "result") -> bytes | Large:
    """The payload of a value that fits inline, or the makings of a side file. Raises NotPicklable."""
    if value is None:
        return _NONE
    aside: list[pickle.PickleBuffer] = []
    try:
        data = _dumps(value, 5, buffer_callback=aside.append)
    except Exception as error:  # noqa: BLE001 -- users' __reduce__ may raise anything
        data = _dump_by_value(value, what, aside.append, error)
    if not _notebook and not aside and len(data) <= INLINE_MAX:
        return _pack_head(PICKLE, crc32(data)) + data
    if _notebook and b"__main__" in data:
        aside.clear()
        data = _dump_by_value(value, what, aside.append)
    return _weigh(value, what, data, aside)


def _weigh(value: Any, what: str, data: bytes, aside: list[pickle.PickleBuffer]) -> bytes | Large:
    try:
        buffers = [buffer.raw() for buffer in aside]
    except BufferError:  # one is not contiguous, so it can't lie in a file as it is
        data, buffers = _dump_by_value(value, what), []
    if len(data) + sum(buffer.nbytes for buffer in buffers) > INLINE_MAX:
        return Large(value, what, data, buffers)
    return seal(PICKLE, _dump_by_value(value, what) if buffers else data)


def _dump_by_value(
    value: Any,
    what: str,
    aside: Callable[[pickle.PickleBuffer], Any] | None = None,
    first: Exception | None = None,
) -> bytes:
    """Cloudpickle does what plain pickle can't, and takes seven times as long."""
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value, protocol=5, buffer_callback=aside))
    except Exception as error:  # noqa: BLE001 -- users' __reduce__ may raise anything
        from dq.executor.culprit import explain

        raise NotPicklable(explain(value, what, error)) from (first or error)
