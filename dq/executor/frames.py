"""Every message between dq's processes, and how it becomes bytes.

A frame is its length (4 bytes, little endian) and a msgpack array whose first item is the message's tag. The decoder
checks types and lengths, so a malformed frame is an exception in the receiver and never half a message.
Payloads inside are opaque bytes (`payload`).
"""

# msgspec hands `frozen` down to subclasses, and pyright wants it repeated in each of them.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import struct

import msgspec

from dq.executor.messages.base import *
from dq.executor.messages.clients import *
from dq.executor.messages.hosts import *
from dq.executor.messages.members import *
from dq.executor.messages.queues import *
from dq.executor.messages.runs import *
from dq.executor.messages.upkeep import *

VERSION = 1
FRAME_MAX = 1 << 30  # bytes; larger payloads travel as side files
HEAD = struct.Struct("<I")

Any = Common | OfClients | OfRuns | OfQueues | OfUpkeep | OfMembers | OfHosts

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Any)


class BadFrame(Exception):
    """Bytes that are not a frame of this version."""


def encode(message: Message) -> bytes:
    """The whole frame, length included.

    >>> decode(encode(Flush(7))[4:])
    Flush(ticket=7)
    """
    buffer = bytearray(4)
    _encoder.encode_into(message, buffer, 4)
    HEAD.pack_into(buffer, 0, len(buffer) - 4)
    return bytes(buffer)


def decode(body: bytes | bytearray | memoryview) -> Any:
    """The message of a frame's body. Raises BadFrame."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(str(error)) from error
