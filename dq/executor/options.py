"""What a decorator says of a function, besides its name, its executor and its crash budget."""

from __future__ import annotations

import functools

import msgspec

from dq.executor.messages.base import Int

SUPERVISOR = "dq"  # the executor of what the supervisor itself ends: timers, waits for signals
# What it ends, as functions on record.
SLEEP, WAIT_SIGNAL, SEND_SIGNAL = "dq:sleep", "dq:wait_signal", "dq:signal"
PUBLISH, PATCHED, CHECKPOINT = "dq:publish", "dq:patched", "dq:checkpoint"
TIMED_OUT = "it has run out of time"  # the cause of a cancel that comes from a run's time limit


class Options(msgspec.Struct, frozen=True, array_like=True):
    """As it travels and rests, packed; defaults are what an undecorated function has.

    New fields come last, so that what an earlier version has packed can still be read.
    """

    timeout: Int = 0  # microseconds that one attempt may take, or a run; 0: no limit
    memory: Int = 0  # bytes that one attempt may have; 0: no limit
    on_crash: str = "retry"
    retry: bytes = b""  # a pickled `retrying.Policy`; b"" for none
    queue: bytes = b""  # a packed queue's definition; b"" for none
    detached: bool = False  # whether a child workflow may outlive its parent
    version: str = ""  # of a workflow
    source: str = ""  # hash of a workflow's text


_DEFAULT = Options()
_decoder = msgspec.msgpack.Decoder(Options)


def pack(options: Options) -> bytes:
    """b"" where all is default.

    >>> pack(Options())
    b''
    """
    return b"" if options == _DEFAULT else msgspec.msgpack.encode(options)


@functools.lru_cache(256)
def unpack(packed: bytes) -> Options:
    """Raises msgspec.MsgspecError for what is not packed options."""
    try:
        return _decoder.decode(packed) if packed else _DEFAULT
    except UnicodeDecodeError as error:  # which msgspec lets through
        raise msgspec.ValidationError(str(error)) from error
