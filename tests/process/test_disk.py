"""A disk that is full, read-only or damaged: work stops with a reason, and nothing that was accepted is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import dq
from tests.process import misfits
from tests.process.crews import rows, serving
from tests.store.mounts import remount, tmpfs
from tests.waiting import wait_until


def test_a_full_disk_stops_the_clock_and_not_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same group is written when there is room again; no step runs twice for it, and nobody has to restart."""
    with tmpfs(tmp_path / "disk", "size=120m") as disk, serving(disk / "f.db", "--workers", "1") as process:
        with dq.Engine(disk / "f.db") as engine:
            assert engine.submit(misfits.double, 1).result(30) == 2
            ballast = disk / "ballast"
            with ballast.open("wb") as file:
                try:
                    while True:
                        file.write(bytes(1 << 16))
                        file.flush()
                except OSError:
                    pass
            # In a thread of its own: `submit` holds whoever submits more than can be put on disk.
            pool = ThreadPoolExecutor(1)
            submitted = pool.submit(lambda: [engine.submit(misfits.length, bytes(100_000)) for _ in range(400)])
            wait_until(lambda: "tries again" in caplog.text, 60)
            ballast.unlink()
            assert [future.result(60) for future in submitted.result(60)] == [100_000] * 400
            pool.shutdown()
            assert engine.census().rows[0].pid == process.pid
        assert rows(disk / "f.db", "SELECT count(*) FROM dq_result WHERE state = 'completed'") == [(401,)]


def test_a_full_disk_at_the_start(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=64k") as disk:
        (disk / "ballast").write_bytes(bytes(48_000))
        with pytest.raises(dq.DiskFull):
            dq.Engine(disk / "f.db")


def test_a_read_only_file_system(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=12m") as disk:
        dq.Engine(disk / "f.db", workers=0).close()
        remount(disk, "ro")
        with pytest.raises(dq.ReadOnlyFile):
            dq.Engine(disk / "f.db")


def test_a_corrupted_page_is_found_and_said(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "f.db", workers=1) as engine:
        assert sum(engine.map(misfits.double, range(3000))) == 2999 * 3000
    data = bytearray((tmp_path / "f.db").read_bytes())
    for page in range(3, len(data) // 4096 - 1):
        data[page * 4096 : page * 4096 + 64] = b"\xa5" * 64
    (tmp_path / "f.db").write_bytes(data)
    with pytest.raises(dq.CorruptDatabase) as error:
        dq.Engine(tmp_path / "f.db", workers=1).submit(misfits.double, 1).result(30)
    assert "f.db" in str(error.value)
