"""Damage to the files of a database: what disks, cables and people do to pages, to the log and to its index."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import damage

PAGE, LOG_HEAD, FRAME_HEAD = 4096, 32, 24
Wound = Callable[[random.Random, bytes], bytes]


def flip_in_page(dice: random.Random, data: bytes) -> bytes:
    """Some bits of one page."""
    hurt, at = bytearray(data), PAGE * dice.randrange(len(data) // PAGE)
    for _ in range(dice.randint(1, 16)):
        hurt[at + dice.randrange(PAGE)] ^= 1 << dice.randrange(8)
    return bytes(hurt)


def flip_in_heads(dice: random.Random, data: bytes) -> bytes:
    """Bits where a page says what it is and where its cells begin: that is where damage leads astray."""
    hurt = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        page = dice.randrange(len(data) // PAGE)
        hurt[page * PAGE + (100 if page == 0 else 0) + dice.randrange(60)] ^= 1 << dice.randrange(8)
    return bytes(hurt)


def wipe(dice: random.Random, data: bytes) -> bytes:
    """A page, or half of it, that was never written."""
    at = PAGE * dice.randrange(len(data) // PAGE)
    end = at + dice.choice([512, 2048, PAGE])
    return data[:at] + dice.choice([b"\0", b"\xff"]) * (end - at) + data[end:]


def splice(dice: random.Random, data: bytes) -> bytes:
    """A page that was written to another one's place, whole or in part."""
    pages = len(data) // PAGE
    source, target = PAGE * dice.randrange(pages), PAGE * dice.randrange(pages)
    size = dice.choice([512, 2048, PAGE, PAGE])
    return data[:target] + data[source : source + size] + data[target + size :]


def swap(dice: random.Random, data: bytes) -> bytes:
    """Two pages that have changed places."""
    first, second = (PAGE * number for number in dice.sample(range(len(data) // PAGE), 2))
    hurt = bytearray(data)
    hurt[first : first + PAGE], hurt[second : second + PAGE] = data[second : second + PAGE], data[first : first + PAGE]
    return bytes(hurt)


def truncate(dice: random.Random, data: bytes) -> bytes:
    """The end is missing: whole pages, or not even whole sectors."""
    return (
        data[: PAGE * dice.randrange(len(data) // PAGE)] if dice.random() < 0.5 else data[: dice.randrange(len(data))]
    )


def behead(dice: random.Random, data: bytes) -> bytes:
    """The first 100 bytes say something else."""
    head, at = bytearray(data[:100]), dice.randrange(100)
    value = dice.choice([b"\0", b"\xff", b"\1", dice.randbytes(1)]) * dice.choice([1, 2, 4])
    head[at : at + len(value)] = value
    return bytes(head[:100]) + data[100:]


def junk(dice: random.Random, data: bytes) -> bytes:
    """A page of noise, or something after the end."""
    at = PAGE * dice.randrange(len(data) // PAGE + 1)
    return data[:at] + dice.randbytes(PAGE) + data[at + PAGE :]


FILE: tuple[Wound, ...] = (
    flip_in_page, flip_in_page, flip_in_heads, flip_in_heads, wipe, splice, swap, truncate, behead, junk, damage.hurt,
)  # fmt: skip


def log_bits(dice: random.Random, data: bytes) -> bytes:
    """Bits of a frame, which its checksum tells."""
    frame = LOG_HEAD + (FRAME_HEAD + PAGE) * dice.randrange(max(1, (len(data) - LOG_HEAD) // (FRAME_HEAD + PAGE)))
    hurt = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        hurt[min(len(data) - 1, frame + dice.randrange(FRAME_HEAD if dice.random() < 0.5 else PAGE))] ^= (
            1 << dice.randrange(8)
        )
    return bytes(hurt)


def log_head(dice: random.Random, data: bytes) -> bytes:
    hurt = bytearray(data)
    hurt[dice.randrange(LOG_HEAD)] ^= 1 << dice.randrange(8)
    return bytes(hurt)


def forge(dice: random.Random, data: bytes) -> bytes:
    """A page of the log is damaged before the checksums are made: memory that has failed."""
    frames = (len(data) - LOG_HEAD) // (FRAME_HEAD + PAGE)
    hurt = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        at = LOG_HEAD + (FRAME_HEAD + PAGE) * dice.randrange(frames) + FRAME_HEAD
        hurt[at : at + PAGE] = dice.choice([flip_in_page, flip_in_page, wipe])(dice, bytes(hurt[at : at + PAGE]))
    if dice.random() < 0.2:  # a frame that says that it is another page's
        at = LOG_HEAD + (FRAME_HEAD + PAGE) * dice.randrange(frames)
        hurt[at : at + 4] = struct.pack(">I", dice.choice([1, 2, dice.randrange(1, 60), 1 << 30]))
    return resum(bytes(hurt))


def resum(data: bytes) -> bytes:
    """The log with checksums that fit what it holds."""
    order = ">" if data[3] & 1 else "<"
    first, second = _sum(data[:24], 0, 0, order)
    parts = [data[:24], struct.pack(">II", first, second)]
    for at in range(LOG_HEAD, len(data) - FRAME_HEAD - PAGE + 1, FRAME_HEAD + PAGE):
        frame = data[at : at + FRAME_HEAD + PAGE]
        first, second = _sum(frame[:8] + frame[FRAME_HEAD:], first, second, order)
        parts += [frame[:16], struct.pack(">II", first, second), frame[FRAME_HEAD:]]
    return b"".join(parts)


def _sum(data: bytes, first: int, second: int, order: str) -> tuple[int, int]:
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second


LOG: tuple[Wound, ...] = (log_bits, log_bits, log_head, damage.cut, damage.hurt, forge, forge)


def operate(dice: random.Random, folder: Path) -> str:
    """Damages the database in a folder, in one place or two; returns what was done."""
    log, index = folder / "f.db-wal", folder / "f.db-shm"
    done: list[str] = []
    for _ in range(dice.choice([1, 1, 1, 2])):
        kinds = [(folder / "f.db", FILE)]
        if log.exists() and log.stat().st_size:
            kinds += [(log, LOG), (index, (damage.hurt, damage.flip, damage.blank))]
        path, wounds = dice.choice(kinds)
        wound = dice.choice(wounds)
        data = path.read_bytes()
        if len(data) < 2 * PAGE:
            continue
        path.write_bytes(wound(dice, data))
        done.append(f"{path.name}:{wound.__name__}")
    return " ".join(done)
