"""Payloads: the opaque bytes that arguments, results and failures travel and rest in.

    tag (1 byte)   crc32 of the body (4 bytes, little endian)   body

Whoever passes a payload on looks at the tag at most; only the two ends, client and worker or host, open the body.
"""

from __future__ import annotations

import struct
from zlib import crc32

from dq.errors import DamagedPayload

PICKLE = b"p"  # the body is a pickle
FILE = b"f"  # the body names a side file that holds one
FAILURE = b"e"  # the body tells an exception

HEAD = struct.Struct("<cI")
DELAY = struct.Struct("<Q")  # microseconds until the next attempt; stands before the failure that it follows
SIGNED = b"\xc1"  # begins a body that is signed; the signature follows, and then the body itself
SIGNATURE = 33  # bytes that both take
INLINE_MAX = 256 << 10  # bytes; a larger body goes into a side file


def seal(tag: bytes, body: bytes) -> bytes:
    """A payload around `body`.

    >>> unseal(seal(PICKLE, b"abc"))
    (b'p', b'abc')
    """
    return HEAD.pack(tag, crc32(body)) + body


def unseal(payload: bytes) -> tuple[bytes, bytes | memoryview]:
    """The tag and the body of a payload. A signature is left out and not checked: so it is for those who only look.

    The body of a large payload is a view, so that a hundred megabytes are not copied.

    Raises:
        DamagedPayload: The bytes are too short, of an unknown kind, or do not match their checksum.
    """
    if len(payload) < HEAD.size:
        raise DamagedPayload(f"a payload of {len(payload)} bytes is too short to be one; the record is damaged")
    tag, checksum = HEAD.unpack_from(payload)
    body = payload[HEAD.size :] if len(payload) <= 4096 else memoryview(payload)[HEAD.size :]
    if tag not in (PICKLE, FILE, FAILURE):
        raise DamagedPayload(f"a payload begins with {tag!r}, which is no kind of payload; the record is damaged")
    if crc32(body) != checksum:
        raise DamagedPayload(f"a payload of {len(payload)} bytes does not match its checksum; the record is damaged")
    return tag, body[SIGNATURE:] if body[:1] == SIGNED else body


def is_failure(payload: bytes) -> bool:
    """Whether the payload tells an exception."""
    return payload[:1] == FAILURE
