"""No-op steps, one `submit` each, all results in hand: dq at full durability beside ProcessPoolExecutor.

    python benchmarks/throughput.py [--steps 20000] [--rounds 5] [--json]

Both run the same code in the same process, turn about. Arguments are distinct. The bodies return their pid, so it is
checked that they run in worker processes. After each of dq's rounds the file is opened with the standard library's
sqlite3: it must hold one completed row for each future. With strace installed, one short round is traced and every
result that was sent to the client is checked to come after a sync that came after the write of its row.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import apsw

import dq


def body(number: int) -> tuple[int, int]:
    return number, os.getpid()


class Round(NamedTuple):
    """What one round measured: steps per second."""

    rate: float
    pids: frozenset[int]


def run(pool: Executor, first: int, steps: int) -> Round:
    """One submit for each step, then every result; numbers are checked, and where bodies ran."""
    start = time.perf_counter()
    futures = [pool.submit(body, number) for number in range(first, first + steps)]
    results = [future.result() for future in futures]
    seconds = time.perf_counter() - start
    assert [number for number, _ in results] == list(range(first, first + steps))
    return Round(steps / seconds, frozenset(pid for _, pid in results))


def completed(db: str) -> int:
    with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as connection:
        return int(connection.execute("SELECT count(*) FROM dq_result WHERE state = 'completed'").fetchone()[0])


def fdatasync(folder: str, times: int = 200) -> float:
    """Seconds that fdatasync of 4 KiB takes here, median."""
    path = os.path.join(folder, "probe")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    took: list[float] = []
    for _ in range(times):
        os.pwrite(fd, bytes(4096), 0)
        start = time.perf_counter()
        os.fdatasync(fd)
        took.append(time.perf_counter() - start)
    os.close(fd)
    os.unlink(path)
    return statistics.median(took)


def measure(steps: int, rounds: int, workers: int) -> dict[str, object]:
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("DQ_BENCH_DIR", ".")) as folder:
        db = os.path.join(folder, "bench.db")
        with dq.Executor(db, max_workers=workers) as executor, ProcessPoolExecutor(workers) as pool:
            run(executor, 0, 1000)
            run(pool, 0, 1000)
            for number in range(rounds):
                first = 1000 + number * steps
                theirs.append(run(pool, first, steps).rate)
                mine = run(executor, first, steps)
                ours.append(mine.rate)
                assert os.getpid() not in mine.pids
                assert len(mine.pids) <= workers
                assert completed(db) == first + steps, "a future had a result that is not in the file"
        size = os.path.getsize(db) / (1000 + rounds * steps)
        sync = fdatasync(folder)
    return {
        "steps": steps,
        "rounds": rounds,
        "workers": workers,
        "dq_per_s": round(statistics.median(ours)),
        "process_pool_per_s": round(statistics.median(theirs)),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2),
        "ratios": [round(a / b, 2) for a, b in zip(ours, theirs, strict=True)],
        "durability": "full: every result is synced before its future resolves",
        "fdatasync_us": round(sync * 1e6),
        "bytes_per_step": round(size),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "cpus": os.cpu_count(),
    }


TRACED = """
import sys, dq
from benchmarks.throughput import run
with dq.Executor(sys.argv[1], max_workers=2) as pool:
    for number in range(200):
        run(pool, number, 1)
"""


def traced_order(folder: str) -> int:
    """Traces steps that are submitted one by one; returns how many sends to the client were seen.

    One by one, since then nothing else is written between a result's write and its send, so that a send with a write
    to the WAL before it that is not synced is an error.
    """
    log = os.path.join(folder, "trace")
    root = str(Path(__file__).resolve().parent.parent)
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([root, os.path.join(root, "executors")]))
    calls = "pwrite64,fdatasync,sendto,sendmsg,accept4,accept,socketpair"
    command = [
        "strace",
        "-f",
        "-y",
        "-e",
        f"trace={calls}",
        "-e",
        "signal=none",
        "-o",
        log,
        sys.executable,
        "-c",
        TRACED,
    ]
    subprocess.run([*command, os.path.join(folder, "traced.db")], check=True, env=env)
    return check_order(Path(log).read_text().splitlines())


def check_order(lines: list[str]) -> int:
    """Counts sends on accepted sockets; raises AssertionError for one that overtakes the sync of what it tells."""
    supervisor, unsynced, seen = "", False, 0
    accepted: set[str] = set()
    for line in lines:
        pid, _, call = line.partition(" ")
        call = call.strip()
        if found := re.match(r"accept4?\(.*= \d+<([^>]*)>", call):
            supervisor = pid
            accepted.add(found[1])
        if call.startswith("pwrite64") and "-wal>" in call:
            unsynced = True
        elif call.startswith("fdatasync") and "-wal>" in call:
            unsynced = False
        elif pid == supervisor and (sent := re.match(r"send(?:to|msg)\(\d+<([^>]*)>", call)) and sent[1] in accepted:
            assert not unsynced, f"sent before the sync: {line}"
            seen += 1
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    report = measure(chosen.steps, chosen.rounds, chosen.workers)
    if shutil.which("strace"):
        with tempfile.TemporaryDirectory() as folder:
            report["sends_seen_after_sync"] = traced_order(folder)
    if chosen.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:>22}  {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
