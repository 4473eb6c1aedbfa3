"""Bytes that were hurt on the way: whoever decodes them gets what was sent, or the error that says so."""

from __future__ import annotations

import functools
import mmap
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dq.errors import DamagedPayload
from dq.executor import blobs, failures, frames, options
from dq.executor.codec import Codec
from dq.executor.contract import Job
from dq.executor.envelope import Runner
from dq.executor.frames import BadFrame, Message
from dq.executor.slots import ENTRIES, FREE, SLOT_SIZE, WORKER, SlotReader, SlotWriter, open_slots
from dq.model.payload import FILE, seal, unseal
from dq.model.states import COMPLETED, FAILED
from tests.fuzz.chatter import KINDS, Chatter
from tests.fuzz.damage import hurt
from tests.sweeps import tally

_VALUES: tuple[Any, ...] = (
    None, 7, -1.5, "text", b"bytes" * 50, [1, 2, {"a": (None, True)}], ((1, 2), {"key": "word"}), "x" * 3000,
)  # fmt: skip
_SIZES = (100, 5000)  # of a payload: the short ones are checked by another line than the long ones


def payloads(dice: random.Random, folder: Path) -> None:
    """A value that was sealed is that value, or DamagedPayload: nothing is unpickled that differs by a bit."""
    codec = Codec(str(folder))
    value = dice.choice(_VALUES) if dice.random() < 0.5 else dice.randbytes(dice.choice(_SIZES))
    sealed = codec.dumps(value, "a1")
    damaged = hurt(dice, sealed)
    try:
        found = codec.loads(damaged)
    except DamagedPayload:
        assert damaged != sealed
    else:
        # The checksum is of the body, and only `p` begins a pickle.
        assert damaged == sealed
        assert found == value


def told_failures(dice: random.Random, folder: Path) -> None:
    sealed = failures.pack(ValueError("no" * dice.randint(1, 90)))
    damaged = hurt(dice, sealed)
    for read in (failures.read, failures.restore, unseal):
        try:
            found = read(damaged)
        except DamagedPayload:
            assert damaged != sealed
        else:
            assert damaged == sealed, found


def references(dice: random.Random, folder: Path) -> None:
    """What names a side file names one in its folder, and what is read there is what was written."""
    codec = Codec(str(folder))
    body = msgspec.msgpack.encode(("s1-e1-0123", dice.randrange(1 << 40), dice.randrange(1 << 32)))
    damaged = hurt(dice, body)
    try:
        found = blobs.reference(damaged)
    except DamagedPayload:
        assert damaged != body
    else:
        assert Path(blobs.path_of(str(folder), found.name)).resolve().is_relative_to(folder.resolve())
        with pytest.raises(DamagedPayload):
            codec.loads(seal(FILE, damaged))


@functools.cache
def written(folder: Path) -> tuple[bytes, list[bytes], Path, bytes]:
    """A side file: what names it, what it holds, where it lies, and its bytes."""
    value = [b"inside" * 9, b"aside" * 900]
    body = blobs.write(str(folder), "s1-e1", pickle.dumps(value, 5), [memoryview(b"more")])
    path = Path(blobs.path_of(str(folder), blobs.reference(body).name))
    return body, value, path, path.read_bytes()


def side_files(dice: random.Random, folder: Path) -> None:
    """A side file whose bytes are others is never unpickled."""
    body, value, path, whole = written(folder)
    path.write_bytes(damaged := hurt(dice, whole))
    try:
        found = blobs.read(str(folder), body)
    except DamagedPayload:
        assert damaged != whole
    else:
        assert damaged == whole
        assert found == value


def messages(dice: random.Random, folder: Path) -> None:
    """A frame's body is a message of the protocol, whose values fit their types, or BadFrame."""
    body = Chatter(dice).frame(dice.choice(KINDS))[4:]
    try:
        found = frames.decode(hurt(dice, body))
    except BadFrame:
        return
    assert isinstance(found, Message)
    again = frames.encode(found)
    assert frames.encode(frames.decode(again[4:])) == again, "what was accepted can be passed on"


def decorators(dice: random.Random, folder: Path) -> None:
    """Options are of their types, or it is said that they are none."""
    packed = options.pack(
        options.Options(
            dice.randrange(1, 1 << 40), dice.randrange(1 << 40), "quarantine", b"r" * 9, b"q", True, "v", "s"
        )
    )
    damaged = hurt(dice, packed)
    try:
        found = options.unpack(damaged)
    except msgspec.MsgspecError:
        assert damaged != packed
        return
    assert msgspec.convert(msgspec.to_builtins(found), options.Options) == found


def bodies(dice: random.Random, folder: Path) -> None:
    """A body never begins with arguments that are not those that were sent: its attempt fails and says why."""
    runner = Runner(Codec(str(folder)))
    runner.define(frames.Define(1, "builtins:repr", "step", b"d" * 16, b"", "", 3))
    args = Codec(None).dumps((([1, "two", dice.random()],), {}), "a1")
    damaged = hurt(dice, args)
    outcome = Job(1, 2, 1, 1, damaged, runner.entry).run()
    if damaged == args:
        assert outcome.status == COMPLETED
    else:
        assert outcome.status == FAILED
        assert isinstance(failures.restore(outcome.payload), DamagedPayload)


def slots(dice: random.Random, folder: Path) -> None:
    """Whatever lies in the slots, the supervisor reads numbers there, and entries that have an id and a mark."""
    memory = shared(folder)
    writer, reader, at = SlotWriter(memory, 3), SlotReader(memory), 3 * SLOT_SIZE
    writer.own(1, 2, 3, b"n" * 16, WORKER)
    for index in range(4):
        writer.begin(index, 10 + index, 1 << 40)
    whole = memory[at : at + SLOT_SIZE]
    memory[at : at + SLOT_SIZE] = hurt(dice, whole)[:SLOT_SIZE].ljust(SLOT_SIZE, b"\xff")
    found = reader.entries(3)
    assert len(found) <= ENTRIES
    assert all(entry.id and entry.mark != FREE for entry in found)
    assert len(reader.identity(3)) == 7
    assert reader.beat(3) == reader.identity(3).beat
    assert len(reader.timed(3)) == 2


@functools.cache
def shared(folder: Path) -> mmap.mmap:
    return open_slots(str(folder / "slots"), create=True)


DECODERS: dict[str, Callable[[random.Random, Path], None]] = {
    "payloads": payloads,
    "failures": told_failures,
    "references": references,
    "side-files": side_files,
    "messages": messages,
    "options": decorators,
    "bodies": bodies,
    "slots": slots,
}


@pytest.mark.parametrize("what", DECODERS)
@pytest.mark.parametrize("count", [625, pytest.param(14_000, marks=pytest.mark.soak)])
def test_hurt_bytes_are_never_taken_for_others(tmp_path: Path, what: str, count: int) -> None:
    """All that was hurt is refused in the words of dq."""
    began, wrong, examples = time.monotonic(), 0, []
    for seed in range(count):
        try:
            DECODERS[what](random.Random(seed), tmp_path)
        except Exception as error:
            wrong += 1
            examples.append(f"{seed}: {error!r}")
    tally("fuzzed payloads and frames", count, seeds=f"0-{count - 1}", began=began, crashed=0, wrong=wrong)
    assert not wrong, examples[:5]
