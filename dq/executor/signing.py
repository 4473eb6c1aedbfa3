"""Signatures: a keyed hash before what would be unpickled, which only those can make who have the key.

    0xC1   HMAC-SHA256 of what it is, of the payload's tag and of the content (32 bytes)   content

No pickle and no msgpack begins with that byte, so that signed and unsigned can't be taken for each other. A signature is
checked, in constant time, before any of the content is looked at.
"""

from __future__ import annotations

import hmac
import os
import shlex
import stat
from typing import NoReturn

from msgspec import structs

from dq.errors import SignatureMismatch
from dq.executor import options
from dq.executor.frames import Define
from dq.model.payload import HEAD, SIGNATURE, SIGNED, seal, unseal

KEY_MIN, KEY_MAX = 32, 4096  # bytes
# What a signature is for. One kind can't stand in for another: a result is no argument, a function no result.
ARGUMENTS, VALUE, FAILURE, CODE, POLICY, FILE = b"arguments", b"value", b"failure", b"code", b"policy", b"file"
_MARK = b"mark"


class Signer:
    """Signs and checks with one key. It shows the key to nobody, and does not travel.

    Example:
        signer = Signer(b"k" * 32)
        payload = signer.open(VALUE, signer.seal(VALUE, payload))
    """

    __slots__ = ("_key", "mark")

    def __init__(self, key: bytes) -> None:
        """Raises ValueError for a key that is too short or too long, TypeError for what is no key."""
        if not isinstance(key, bytes):
            raise TypeError(f"a signing key is bytes, or the path of a file that holds it, not {type(key).__name__}")
        if not KEY_MIN <= len(key) <= KEY_MAX:
            raise ValueError(
                f"a signing key has from {KEY_MIN} to {KEY_MAX} bytes, and this one has {len(key)}. Make one with "
                "`python -c 'import secrets; print(secrets.token_hex(32))'`"
            )
        self._key = key
        self.mark = hmac.digest(key, _MARK, "sha256")[:8]  # tells one key from another, and nothing of either

    def __repr__(self) -> str:
        return f"<a signing key, {self.mark.hex()}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is not pickled: it would lie in the file that it protects")

    def reveal(self) -> bytes:
        """The key, for the pipe to a process of the same engine."""
        return self._key

    def sign(self, kind: bytes, content: bytes | memoryview, tag: bytes = b"") -> bytes:
        """The content with its signature."""
        return SIGNED + self._hash(kind, tag, content) + content

    def check(self, kind: bytes, signed: bytes | memoryview, tag: bytes = b"") -> bytes | memoryview:
        """The content of what `sign` made. Raises SignatureMismatch."""
        if bytes(signed[:1]) != SIGNED:
            raise SignatureMismatch(
                f"recorded bytes ({kind.decode()}) carry no signature, and a signing key is in use here: they were written "
                "before it was, or by somebody who has not got it. Nothing of them is unpickled. If you know where they "
                "come from, finish what is open without the key (`dq up --until-idle`), and use the key from then on"
            )
        content = signed[SIGNATURE:]
        if not hmac.compare_digest(bytes(signed[1:SIGNATURE]), self._hash(kind, tag, content)):
            raise SignatureMismatch(
                f"recorded bytes ({kind.decode()}) do not match their signature: they were signed with another key, or "
                "somebody has changed or moved them. Nothing of them is unpickled. If the key was changed, go on with the "
                "old one; else look at who can write the file, and go back to a backup (`dq doctor` says more)"
            )
        return content

    def seal(self, kind: bytes, payload: bytes) -> bytes:
        """A payload with a signature in it."""
        tag = payload[:1]
        return seal(tag, self.sign(kind, payload[HEAD.size :], tag))

    def open(self, kind: bytes, payload: bytes) -> bytes:
        """The payload that `seal` was given. Raises DamagedPayload, SignatureMismatch."""
        unseal(payload)
        tag = payload[:1]
        return seal(tag, bytes(self.check(kind, memoryview(payload)[HEAD.size :], tag)))

    def hasher(self) -> hmac.HMAC:
        """Takes the content of a side file piece by piece."""
        return hmac.new(self._key, FILE + b"\0", "sha256")

    def introduce(self, define: Define) -> Define:
        """A function with its code and its retry policy signed, and known under another digest than without."""
        code, packed = define.code, define.options
        told = options.unpack(packed)
        if told.retry:
            packed = options.pack(structs.replace(told, retry=self.sign(POLICY, told.retry, define.name.encode())))
        if code:
            code = self.sign(CODE, code, define.name.encode())
        if code == define.code and packed == define.options:
            return define
        return structs.replace(
            define, code=code, options=packed, digest=hmac.digest(self._key, define.digest, "sha256")[:16]
        )

    def _hash(self, kind: bytes, tag: bytes, content: bytes | memoryview) -> bytes:
        made = hmac.new(self._key, kind + b"\0" + tag + b"\0", "sha256")
        made.update(content)
        return made.digest()


_own: Signer | None = None


def use(key: bytes) -> None:
    """The key of all that this process makes and reads, b"" for none: of a supervisor, a template, a command."""
    global _own
    _own = Signer(key) if key else None


def chosen(key: bytes | os.PathLike[str] | None) -> Signer | None:
    """The signer for a key, or for the file that holds one; for None that of this process, if it has one.

    Raises:
        SignatureMismatch: Others can read the file.
        TypeError, ValueError: It is no key.
    """
    if isinstance(key, str):
        raise TypeError("a signing key is bytes, or the pathlib.Path of a file that holds it; a str could be either")
    if key is None:
        return _own
    return Signer(read_key(key) if isinstance(key, os.PathLike) else key)


def own() -> Signer | None:
    """The signer of this process, if it has one."""
    return _own


def mark() -> bytes:
    """What tells the key of this process from others; b"" where it has none."""
    return _own.mark if _own is not None else b""


def introduce(define: Define) -> Define:
    """A function as this process records it."""
    return define if _own is None else _own.introduce(define)


def sealed(kind: bytes, payload: bytes) -> bytes:
    """A payload as this process records it."""
    return payload if _own is None else _own.seal(kind, payload)


def opened(kind: bytes, payload: bytes) -> bytes:
    """A recorded payload as it was before it was sealed. Raises SignatureMismatch, DamagedPayload."""
    if _own is not None:
        return _own.open(kind, payload)
    if payload[HEAD.size : HEAD.size + 1] == SIGNED:
        raise keyless()
    return payload


def content(kind: bytes, signed: bytes, place: bytes) -> bytes:
    """The same for a function's code and its policy, which belong to a name. Raises SignatureMismatch."""
    if _own is not None:
        return bytes(_own.check(kind, signed, place))
    if signed[:1] == SIGNED:
        raise keyless()
    return signed


def keyless() -> SignatureMismatch:
    """What is said where something is signed and no key is at hand."""
    return SignatureMismatch(
        "what is recorded here is signed, and no signing key is in use, so that it can't be told whether it is genuine. "
        "Nothing of it is unpickled. Give the key: dq.Engine(path, signing_key=...), or "
        "`dq --signing-key-file FILE ...`, or the variable DQ_SIGNING_KEY_FILE"
    )


def read_key(path: str | os.PathLike[str]) -> bytes:
    """The key in a file that nobody else can read; a newline at its end does not belong to it.

    Raises:
        SignatureMismatch: The file can't be read, is a link, or others may read or write it.
        ValueError: What it holds is too short or too long.
    """
    name = os.fspath(path)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise SignatureMismatch(
            f"the signing key {name} can't be read ({error.strerror}). Name a file of your own that holds it"
        ) from error
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid not in (os.geteuid(), 0):
            raise SignatureMismatch(
                f"the signing key {name} is not for your eyes only ({stat.filemode(found.st_mode)}), so that others may know "
                f"it. Make a new key, and give it the mode 0600: `chmod 600 {shlex.quote(name)}`"
            )
        key = file.read(KEY_MAX + 2).rstrip(b"\r\n")
    Signer(key)
    return key
