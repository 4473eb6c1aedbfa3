"""Much and large: what a program hands over by the million or by the hundred megabytes fills nobody's memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

import dq
from tests.process import misfits

LARGE = 100_000_256  # bytes
MIB = 1 << 20


def rss(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def test_a_result_and_an_argument_of_a_hundred_megabytes(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        data = engine.submit(misfits.many_bytes, LARGE).result(60)
        assert data == bytes(range(256)) * (LARGE // 256)
        assert engine.submit(misfits.length, data).result(60) == LARGE
        [supervisor] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
        assert rss(supervisor) < 100 * MIB
    assert (tmp_path / "f.db").stat().st_size < MIB
    files = [path for path in (tmp_path / "f.db.blobs").rglob("*") if path.is_file()]
    assert len(files) == 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)


def test_a_fan_out_of_a_million(tmp_path: Path) -> None:
    count = 1_000_000
    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        run = engine.start(misfits.million, count)
        assert run.result(110) == count * (count - 1)
        assert run.progress() == (count, count)
        pids = {row.kind: row.pid for row in engine.census().rows}
        assert rss(pids["supervisor"]) < 400 * MIB
        assert rss(pids["host"]) < 800 * MIB


def test_a_map_over_an_endless_generator_is_bounded(tmp_path: Path) -> None:
    drawn = 0

    def numbers() -> Iterator[int]:
        nonlocal drawn
        while True:
            yield drawn
            drawn += 1

    with dq.Engine(tmp_path / "f.db", workers=2) as engine:
        before = rss(os.getpid())
        results = engine.map(misfits.double, numbers())
        for expected in range(100_000):
            assert next(results) == 2 * expected
        assert drawn < 100_000 + 50_000
        assert rss(os.getpid()) - before < 100 * MIB
        del results  # nobody wants the rest
