"""Bytes that are not what they were: one small wound at a time, each drawn from a random.Random."""

from __future__ import annotations

import random
from collections.abc import Callable


def flip(dice: random.Random, data: bytes) -> bytes:
    """A few bits are others."""
    hurt = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        hurt[dice.randrange(len(hurt))] ^= 1 << dice.randrange(8)
    return bytes(hurt)


def cut(dice: random.Random, data: bytes) -> bytes:
    """The end is missing."""
    return data[: dice.randrange(len(data))]


def lack(dice: random.Random, data: bytes) -> bytes:
    """A stretch in the middle is missing."""
    start = dice.randrange(len(data))
    return data[:start] + data[start + dice.randint(1, 16) :]


def grow(dice: random.Random, data: bytes) -> bytes:
    """Something was put in."""
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.randbytes(dice.randint(1, 16)) + data[at:]


def blank(dice: random.Random, data: bytes) -> bytes:
    """A stretch is all zeros or all ones, as a disk or a buffer would leave it."""
    start = dice.randrange(len(data))
    end = min(len(data), start + dice.randint(1, max(1, len(data) // 4)))
    return data[:start] + dice.choice([b"\0", b"\xff"]) * (end - start) + data[end:]


def repeat(dice: random.Random, data: bytes) -> bytes:
    """A stretch comes twice."""
    start = dice.randrange(len(data))
    end = min(len(data), start + dice.randint(1, 64))
    return data[:end] + data[start:end] + data[end:]


KINDS: tuple[Callable[[random.Random, bytes], bytes], ...] = (flip, flip, flip, cut, lack, grow, blank, repeat)


def hurt(dice: random.Random, data: bytes) -> bytes:
    """One wound of any kind. It may leave the bytes as they were: zeros over zeros do."""
    return dice.choice(KINDS)(dice, data) if data else dice.randbytes(4)
