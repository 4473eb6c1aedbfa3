"""Messages that anybody might send: of every kind, with fields that are right, nearly right, or absurd."""

from __future__ import annotations

import random
import types
import typing

import msgspec

from dq.executor import frames, options
from dq.executor.frames import FRAME_MAX, HEAD, Message, encode
from dq.model.payload import PICKLE, seal
from tests.fuzz import damage

KINDS: tuple[type[Message], ...] = typing.get_args(frames.Any)

_NUMBERS = (0, 1, 2, 3, 5, 255, -1, -128, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63))
_TEXTS = (
    "", "r", "m:f", "m:flow", "r/1", "step", "workflow", "completed", "failed", "running", "0", "0.1", "go", "pause",
    "delete", "dq", "cpu", "*/5 * * * *", "every 60 s", "UTC", "skip", "\0", "é" * 40, "x" * 5000, "dq:sleep", "dq:signal",
    "dq:wait_signal", "dq:publish", "SELECT 1", "INSERT INTO dq_step VALUES (1)", "m:f#2",
)  # fmt: skip
_BLOBS = (
    b"", b"args", b"f" * 16, seal(PICKLE, b"\x80\x05N."), seal(b"f", b"\x93\xa3abc\x01\x02"), b"\xc1" * 9, b"\x00" * 300,
    options.pack(options.Options(timeout=5, on_crash="park")), options.pack(options.Options(timeout=1 << 63)),
)  # fmt: skip


class Chatter:
    """Draws messages. `ids` are numbers that mean something just now: steps, runs, functions, epochs."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.ids: list[int] = [1]

    def message(self, *kinds: type[Message]) -> Message:
        """Of one of these kinds, else of any."""
        kind = self.dice.choice(kinds or KINDS)
        return kind(*[self._value(field.type) for field in msgspec.structs.fields(kind)])

    def frame(self, *kinds: type[Message]) -> bytes:
        """Most often a whole frame of a message; else a hurt one, under a right length or a wrong one."""
        whole, luck = encode(self.message(*kinds)), self.dice.random()
        if luck < 0.6:
            return whole
        if luck < 0.85:
            body = damage.hurt(self.dice, whole[HEAD.size :])
            return HEAD.pack(len(body)) + body
        if luck < 0.95:
            return damage.hurt(self.dice, whole)
        return HEAD.pack(self.dice.choice([FRAME_MAX + 1, 0xFFFFFFFF, 0])) + whole[HEAD.size :]

    def _value(self, kind: object) -> typing.Any:
        dice = self.dice
        if kind is int:
            return dice.choice(self.ids) if dice.random() < 0.7 else dice.choice(_NUMBERS)
        if kind is str:
            return dice.choice(_TEXTS)
        if kind is bytes:
            return dice.choice(_BLOBS)
        if kind is bool:
            return dice.random() < 0.5
        if kind is type(None):
            return None
        if kind is typing.Any:
            return self._value(dice.choice([int, str, bytes, type(None)]))
        return self._compound(kind)

    def _compound(self, kind: object) -> typing.Any:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return kind(*[self._value(field.type) for field in msgspec.structs.fields(kind)])
        origin, inside = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            pattern = inside[1].pattern
            words = pattern.strip("^()$").split("|") if pattern else []
            return self.dice.choice(words) if words and self.dice.random() < 0.9 else self._value(inside[0])
        if origin in (types.UnionType, typing.Union):
            return self._value(self.dice.choice(inside))
        if origin is list:
            return [self._value(inside[0]) for _ in range(self.dice.choice([0, 1, 1, 1, 2, 3]))]
        if origin is dict:
            return {self._value(inside[0]): self._value(inside[1])}
        assert origin is tuple, kind
        if inside[-1] is Ellipsis:
            return tuple(self._value(inside[0]) for _ in range(self.dice.randrange(3)))
        return tuple(self._value(part) for part in inside)
