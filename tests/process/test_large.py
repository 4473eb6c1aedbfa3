"""Values of a hundred megabytes: they travel in side files, arrive as they were, and pass through few hands."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import dq
from tests.process import misfits
from tests.process.memory import MIB, peaks

LARGE = 100_000_256  # bytes
MEDIUM = 30_000_128
INLINE = 256 << 10


def side_files(db: Path | str) -> list[Path]:
    return [path for path in Path(f"{db}.blobs").rglob("*") if path.is_file()]


def test_a_result_and_an_argument_of_a_hundred_megabytes(engine: dq.Engine) -> None:
    data = engine.submit(misfits.many_bytes, LARGE).result(60)
    assert data == bytes(range(256)) * (LARGE // 256)
    assert engine.submit(misfits.length, data).result(60) == LARGE
    found = peaks(engine)
    assert found["supervisor"] < 100 * MIB, "large values do not pass through it"
    assert found["worker"] < 350 * MIB
    assert os.path.getsize(engine.path) < MIB
    assert len(side_files(engine.path)) == 2
    for path in side_files(engine.path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_array_of_a_hundred_megabytes(engine: dq.Engine) -> None:
    """Its buffer lies in the file as it is; the reader maps it, and may write to what is its own."""
    array: npt.NDArray[Any] = np.arange(LARGE // 8, dtype="f8")
    back = engine.submit(misfits.same, array).result(60)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    back[0] = 7.0
    assert engine.submit(misfits.negated, array).result(60)[1] == -1.0
    found = peaks(engine)
    assert found["supervisor"] < 100 * MIB
    assert found["worker"] < 300 * MIB


def test_large_values_of_a_workflow(engine: dq.Engine) -> None:
    """Its arguments, those of its step, the step's result and its own: equal, and there to be had again."""
    data = bytes(range(256)) * (MEDIUM // 256)
    assert engine.start(misfits.carried, data, id="r").result(60) == data
    assert engine.start(misfits.carried, data, id="r").result(60) == data
    assert peaks(engine)["supervisor"] < 100 * MIB


@pytest.mark.parametrize("size", [INLINE - 256, INLINE, INLINE + 256])
def test_around_the_size_from_which_on_a_value_gets_a_file(engine: dq.Engine, size: int) -> None:
    data = os.urandom(size)
    assert engine.submit(misfits.same, data).result(30) == data


@pytest.mark.parametrize("harm", ["gone", "flipped", "short"])
def test_a_side_file_that_is_damaged_is_named(engine: dq.Engine, harm: str) -> None:
    """A wrong value is never handed out for the right one."""
    assert len(engine.start(misfits.carried, bytes(MIB), id="r").result(30)) == MIB
    for path in side_files(engine.path):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        if harm == "gone":
            path.unlink()
        else:
            path.write_bytes(data if harm == "flipped" else data[:-1])
    with pytest.raises(dq.DamagedPayload, match=rf"the side file {engine.path}\.blobs/"):
        engine.get("r").result(30)
    assert engine.submit(misfits.double, 2).result(20) == 4
