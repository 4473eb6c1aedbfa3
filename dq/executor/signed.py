"""The codec of those who have a signing key: signs what it makes, and checks what it reads before it unpickles it."""

from __future__ import annotations

from typing import Any

from dq.executor import blobs, codec, failures, signing
from dq.executor.codec import Codec, Large
from dq.executor.frames import Define
from dq.executor.signing import ARGUMENTS, FAILURE, VALUE, Signer
from dq.model.payload import FILE, unseal


def make(folder: str | None, signer: Signer | None, *, patient: bool = False) -> Codec:
    """A codec for those who have a signer, or for those who have none."""
    if signer is None:
        return Codec(folder, patient=patient)
    return SignedCodec(folder, signer, patient=patient)


class SignedCodec(Codec):
    """Does what a codec does, with signatures. The arguments are those of `Codec`, and the signer."""

    def __init__(self, folder: str | None, signer: Signer, *, patient: bool = False) -> None:
        super().__init__(folder, patient=patient)
        self._signer = signer
        self.mark = signer.mark
        self.pack = self._pack

    def _pack(self, value: Any, what: str = "result") -> bytes | Large:
        packed = codec.pack(value, what)
        return packed if isinstance(packed, Large) else self._seal(packed, what)

    def _seal(self, payload: bytes, what: str) -> bytes:
        assert self._signer is not None
        return self._signer.seal(ARGUMENTS if what == "arguments" else VALUE, payload)

    def place(self, large: Large, name: str) -> bytes:
        return self._seal(super().place(large, name), large.what)

    def loads(self, payload: bytes) -> Any:
        return self._load(VALUE, payload)

    def load_call(self, payload: bytes) -> Any:
        return self._load(ARGUMENTS, payload)

    def _load(self, kind: bytes, payload: bytes) -> Any:
        assert self._signer is not None
        bare = self._signer.open(kind, payload)
        if bare[:1] == FILE and self.folder is not None:
            return blobs.read(self.folder, bytes(unseal(bare)[1]), self._signer)
        return Codec.loads(self, bare)

    def failure(self, error: BaseException) -> bytes:
        assert self._signer is not None
        return self._signer.seal(FAILURE, super().failure(error))

    def restore(self, payload: bytes) -> BaseException:
        assert self._signer is not None
        return failures.restore(self._signer.open(FAILURE, payload))

    def introduce(self, define: Define) -> Define:
        assert self._signer is not None
        return self._signer.introduce(define)


def own(folder: str | None, *, patient: bool = False) -> Codec:
    """The codec of a process that works for one file."""
    return make(folder, signing.own(), patient=patient)
