"""How long it takes until a step runs again: after the kill of its worker, and after the kill of the supervisor.

    python benchmarks/recovery.py [--kills 200] [--stops 30] [--workers 2] [--json]

A body says when it begins, on the clock that all processes share, and waits. Its process, or the supervisor, is killed with
SIGKILL. What is measured is the time from just before the kill to the moment at which the body begins once more: the death
is seen, the attempt's end and the new claim are in the file, a new process is there (for a supervisor: a whole crew, and
the log that it found recovered and synced). With `--resident` the worker has so many MB in memory, which the kernel must
free first. The last part fills the log to `--log` MB behind a reader that keeps it from being emptied.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dq

_LONG = 60.0  # seconds after which the wait for a beginning is given up
_CHUNK = 200_000  # bytes of one argument, which stays in the database


@dq.step(max_crashes=100)
def hold(log: str, gate: str, resident: int) -> None:
    """Says that it begins; the first attempt then waits for its end."""
    attempt = dq.current().attempt
    memory = bytearray(b"x") * (resident << 20) if attempt == 1 else b""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{attempt} {os.getpid()} {time.monotonic_ns()}\n".encode())
    os.close(fd)
    if attempt == 1:
        with open(gate, "rb") as pipe:
            pipe.read()
    del memory


@dq.step
def swallow(data: bytes) -> int:
    return len(data)


def begins(log: Path, count: int) -> list[tuple[int, int, int]]:
    """The first `count` beginnings: (attempt, pid, ns)."""
    until = time.monotonic() + _LONG
    while time.monotonic() < until:
        lines = log.read_text().splitlines() if log.exists() else []
        if len(lines) >= count:
            return [(int(a), int(b), int(c)) for a, b, c in map(str.split, lines[:count])]
        time.sleep(0.0005)
    raise TimeoutError(f"{log} has fewer than {count} lines")


def again(engine: dq.Engine, folder: Path, number: int, resident: int, victim: Callable[[int], int]) -> float:
    """Milliseconds from the kill of `victim(pid of the body's process)` to the body's next beginning."""
    log, gate = folder / f"log-{number}", folder / "gate"
    future = engine.submit(hold, str(log), str(gate), resident)
    ((_, pid, _),) = begins(log, 1)
    dying = victim(pid)
    killed = time.monotonic_ns()
    os.kill(dying, signal.SIGKILL)
    _, (attempt, other, begun) = begins(log, 2)
    future.result(_LONG)
    assert attempt == 2
    assert other != pid
    log.unlink()
    return (begun - killed) / 1e6


def supervisor(engine: dq.Engine) -> int:
    return next(row.pid for row in engine.census().rows if row.kind == "supervisor")


def fill(engine: dq.Engine, megabytes: int) -> None:
    """Puts so much into the log."""
    for _ in range(0, megabytes * 5, 100):
        for future in [engine.submit(swallow, os.urandom(_CHUNK)) for _ in range(100)]:
            future.result(_LONG)


def behind_a_log(engine: dq.Engine, folder: Path, megabytes: int) -> float:
    """The same for the supervisor, whose log a reader has kept from being emptied."""
    reader = sqlite3.connect(f"file:{folder / 'bench.db'}?mode=ro", uri=True)
    with contextlib.closing(reader):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM dq_run").fetchone()
        fill(engine, megabytes)
        assert (folder / "bench.db-wal").stat().st_size >= megabytes << 20
        return again(engine, folder, 0, 0, lambda _: supervisor(engine))


def spread(values: list[float]) -> dict[str, float]:
    ranked = sorted(values)
    return {
        "p50": round(statistics.median(ranked), 2),
        "p99": round(ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))], 2),
        "max": round(ranked[-1], 2),
        "times": len(ranked),
    }


def measure(kills: int, stops: int, workers: int, resident: int, log: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("DQ_BENCH_DIR", ".")) as place:
        folder = Path(place)
        os.mkfifo(folder / "gate", 0o600)
        with dq.Engine(folder / "bench.db", workers=workers) as engine:
            small = [again(engine, folder, n, 0, lambda pid: pid) for n in range(kills)]
            large = [again(engine, folder, n, resident, lambda pid: pid) for n in range(kills)]
            lone = [again(engine, folder, n, 0, lambda _: supervisor(engine)) for n in range(stops)]
            report: dict[str, Any] = {
                "worker_ms": spread(small),
                f"worker_with_{resident}_mb_ms": spread(large),
                "supervisor_ms": spread(lone),
            }
            if log:
                report[f"supervisor_with_{log}_mb_log_ms"] = spread([behind_a_log(engine, folder, log)])
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--stops", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resident", type=int, default=50, help="MB")
    parser.add_argument("--log", type=int, default=0, help="MB; 0 leaves this part out")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    report = measure(chosen.kills, chosen.stops, chosen.workers, chosen.resident, chosen.log)
    if chosen.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:>28}  " + "  ".join(f"{key} {number}" for key, number in value.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
