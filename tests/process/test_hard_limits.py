"""What the machine has no more of: processes, memory, descriptors. Whoever takes it all harms itself; the engine goes on."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import dq
from tests.process import flows
from tests.process.crews import rows, said, serving
from tests.waiting import wait_until

PIDS, MEMORY = Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup/memory")
MIB = 1 << 20


@contextmanager
def group(root: Path, limits: dict[str, str]) -> Iterator[Path]:
    """A control group that holds whoever joins it to some limits. Skips the test where there is none."""
    made = root / f"dq-test-{os.getpid()}"
    try:
        made.mkdir()
        for name, value in limits.items():
            (made / name).write_text(value)
    except OSError as error:
        pytest.skip(f"no such control group here: {error}")
    try:
        yield made
    finally:
        wait_until(lambda: not (made / "cgroup.procs").read_text(), what="the end of who was in the group")
        made.rmdir()


@dq.step(timeout=1.0)
def bombs(folder: str, cgroup: str) -> None:
    """Forks until the system says no, each child too."""
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    flows.note(folder, "begin", "bombs", os.getpid())
    while True:
        try:
            os.fork()
        except BlockingIOError:
            signal.sigtimedwait([], 0.05)


def test_a_fork_bomb_under_a_limit_of_processes(engine: dq.Engine, tmp_path: Path) -> None:
    with group(PIDS, {"pids.max": "40"}) as cgroup:
        future = engine.submit(bombs, str(tmp_path), str(cgroup))
        wait_until(lambda: (cgroup / "pids.current").read_text() == "40\n", what="as many as may be")
        assert [engine.submit(abs, -number).result(30) for number in range(20)] == [*range(20)]
        with pytest.raises(dq.StepTimeout):
            future.result(30)
        wait_until(lambda: (cgroup / "pids.current").read_text() == "0\n", what="the end of the whole group")
    assert engine.submit(abs, -1).result(30) == 1


@dq.step(max_crashes=1)
def swells(cgroup: str) -> int:
    """Takes memory in a group that may not have it, and so meets the kernel's killer."""
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    return len(b"x" * (256 * MIB))


def test_a_kill_for_want_of_memory_is_told_as_one(engine: dq.Engine) -> None:
    with group(MEMORY, {"memory.limit_in_bytes": str(64 * MIB)}) as cgroup:
        others = [engine.submit(abs, -number) for number in range(20)]
        with pytest.raises(dq.StepCrashed, match=r"SIGKILL.*want of memory"):
            engine.submit(swells, str(cgroup)).result(30)
        assert [other.result(30) for other in others] == [*range(20)]
    assert engine.submit(abs, -1).result(30) == 1


@dq.step
def oom_score() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


def test_the_kernel_takes_a_worker_before_the_supervisor(engine: dq.Engine) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    [supervisor] = [row.pid for row in engine.census().rows if row.kind == "supervisor"]
    assert int(Path(f"/proc/{supervisor}/oom_score_adj").read_text()) == own
    assert engine.submit(oom_score).result(30) > own


def test_a_supervisor_without_descriptors_says_so_and_goes_on(tmp_path: Path) -> None:
    """People who knock meanwhile wait; who is inside is served; and when there are some again all come in."""
    db = tmp_path / "f.db"
    with serving(db, "--workers", "1") as process, dq.Engine(db, workers=1) as engine, ExitStack() as stack:
        assert engine.submit(abs, -1).result(30) == 1
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{process.pid}/fd"))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 3, hard))
        knocking = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) for _ in range(12)]
        for sock in knocking:
            sock.connect(f"{db}.sock")
        wait_until(lambda: said(db, "descriptor"), what="a word about it")
        assert engine.submit(abs, -2).result(30) == 2
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        with dq.Client(db) as client:
            assert client.census().boot_epoch == 1
        assert process.poll() is None
    assert rows(db, "SELECT count(*) FROM dq_attempt") == [(0,)]
