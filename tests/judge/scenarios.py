"""One short story for each guard of the supervisor. A sound one comes through; one that lacks the guard is found out.

Nothing in them depends on who is quicker: each waits for what it needs, and holds everybody else until then.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dq
from dq.cli.chaos.history import note
from dq.executor.frames import VERSION, Census, Context, Define, Hello, Start, Started, Welcome, encode
from dq.executor.link import Link
from dq.executor.slots import SLOTS, SlotReader, open_slots
from dq.model.payload import PICKLE, seal
from dq.store.store import Store
from tests.judge import bodies
from tests.judge.checker import Finding, judge
from tests.judge.history import Begin, History
from tests.process.crews import ROOT, dial, rows, serving, state
from tests.waiting import wait_until


class Scene:
    """A folder with a database and a history."""

    def __init__(self, folder: Path, lacks: str) -> None:
        self.db = folder / "f.db"
        self.log = str(folder / "history")
        self.lacks = lacks
        Path(self.log).touch()

    @contextmanager
    def supervisor(self, nemeses: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """One that lacks what is to be lacked, for the time of a block."""
        ours, theirs = os.pipe()
        command = [sys.executable, "-P", "-m", "tests.judge.mutant", self.lacks, nemeses, "--"]
        command += ["--db", str(self.db), "--ready-fd", str(theirs), *words]
        env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]))
        with open(f"{self.db}.err", "ab") as errors:
            process = subprocess.Popen(command, pass_fds=[theirs], start_new_session=True, stderr=errors, env=env)
        os.close(theirs)
        try:
            with open(ours) as pipe:
                assert json.loads(pipe.readline())["error"] is None
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.wait()

    def submit(self, engine: dq.Engine, *gates: str) -> dq.Future[int]:
        """The one step of the story, which holds at a gate for each attempt."""
        note(self.log, "alone", work="story", must=["held"])
        future = engine.submit(bodies.held, self.log, "held", *gates)
        engine.flush()
        note(self.log, "flushed", work="story")
        return future

    def begins(self) -> list[Begin]:
        return [begin for begins in History(self.log).begins.values() for begin in begins]

    def begun(self, count: int) -> Begin:
        """Waits for the body of that number, from 1 on."""
        return wait_until(lambda: self.begins()[count - 1 : count])[0]

    def ended(self, number: int) -> bool:
        return self.begins()[number - 1].end is not None

    def open(self, gate: str) -> None:
        Path(f"{self.log}.{gate}").touch()

    def findings(self) -> list[Finding]:
        return judge(self.db, self.log)


def stopped_worker(scene: Scene) -> list[Finding]:
    """A worker is stopped in a body until it is held to be hung, and goes on when the step is at work elsewhere."""
    with scene.supervisor("", "--workers", "2", "--hang", "0.4"), dq.Engine(scene.db, workers=2) as engine:
        future = scene.submit(engine, "gate")
        first = scene.begun(1)
        os.kill(first.pid, signal.SIGSTOP)
        scene.begun(2)
        with contextlib.suppress(ProcessLookupError):
            os.kill(first.pid, signal.SIGCONT)
        scene.open("gate")
        assert future.result(60) == 1
        wait_until(lambda: not _lives(first.pid) or scene.ended(1))
    return scene.findings()


def dead_with_a_result(scene: Scene) -> list[Finding]:
    """A worker sends a result and is killed before the supervisor has read it."""
    with (
        scene.supervisor("deaths_come_first", "--workers", "1") as supervisor,
        dq.Engine(scene.db, workers=1) as engine,
    ):
        future = scene.submit(engine, "gate")
        worker = scene.begun(1).pid
        os.kill(supervisor.pid, signal.SIGSTOP)
        wait_until(lambda: state(supervisor.pid) == "T", what="it hears of nothing any more")
        scene.open("gate")
        wait_until(lambda: scene.ended(1) and not _is_at_work(scene.db, worker), what="its result is sent")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not _lives(worker))
        os.kill(supervisor.pid, signal.SIGCONT)
        assert future.result(60) == 1
    return scene.findings()


def late_result(scene: Scene) -> list[Finding]:
    """A worker that was taken for dead sends its result while the step is at work elsewhere.

    That two are at work is the misfortune of this story, and left out of its findings.
    """
    with scene.supervisor("false_alarm", "--workers", "2", "--hang", "0.4"), dq.Engine(scene.db, workers=2) as engine:
        future = scene.submit(engine, "first", "second")
        first = scene.begun(1)
        Path(f"{scene.db}.alarm").touch()
        second = scene.begun(2)
        scene.open("first")
        wait_until(lambda: scene.ended(1) and not _is_at_work(scene.db, first.pid), what="the late result is sent")
        wait_until(lambda: engine.census().boot_epoch)  # the supervisor answers, so it has read what came before
        scene.open("second")
        assert future.result(60) == 1
        assert second.epoch > first.epoch
    return [finding for finding in scene.findings() if finding.kind != "overlap"]


def succeeded(scene: Scene) -> list[Finding]:
    """A supervisor is stopped, somebody deletes its lock file, and when it goes on another one has ended its work."""
    with scene.supervisor("", "--workers", "1") as first:
        with dq.Engine(scene.db, workers=1) as engine:
            scene.submit(engine, "gate")
            scene.begun(1)
        os.kill(first.pid, signal.SIGSTOP)
        os.unlink(f"{scene.db}.lock")
        with serving(scene.db, "--workers", "1") as second:
            scene.begun(2)
            scene.open("gate")
            wait_until(lambda: rows(scene.db, "SELECT 1 FROM dq_result"))
            os.kill(first.pid, signal.SIGCONT)
            wait_until(lambda: first.poll() is not None or len(scene.begins()) > 2, what="the first one gives up")
            if first.poll() is None:
                os.kill(first.pid, signal.SIGKILL)
                first.wait()
            second.terminate()
            second.wait(30)
    return scene.findings()


def power_cut(scene: Scene) -> list[Finding]:
    """A run is started, and as soon as that is acknowledged, or a sync is under way that does not end, the power fails."""
    Store.open(scene.db).close(clean=True)  # an empty database is on disk
    with scene.supervisor("power", "--workers", "0"), dial(scene.db) as sock:
        link = Link(sock)
        context = Context(sys.executable, "", "/", tuple(sys.path), "")
        link.send(Hello(VERSION, os.getpid(), b"n" * 16, context))
        welcome = next(message for message in link.receive() if isinstance(message, Welcome))
        link.send(Census(1))
        link.receive()  # it hears the next word, so the sync of this one is over
        Path(f"{scene.db}.slow").touch()
        note(scene.log, "start", run="r")
        define = Define(1, f"{bodies.__name__}:nothing", "workflow", b"d" * 16, b"", "", 3)
        start = Start(1, welcome.first, "r", 1, seal(PICKLE, pickle.dumps(((), {}))), b"f" * 16)
        link.send_bytes(encode(define) + encode(start))
        heard: list[object] = []

        def answered() -> bool:
            heard.extend(link.poll())
            return any(isinstance(message, Started) for message in heard)

        wait_until(lambda: answered() or os.path.exists(f"{scene.db}.waits"))
        if answered():  # what was sent before the sync is here by now
            note(scene.log, "started", run="r")
    for suffix in ("-wal", "-shm"):
        Path(f"{scene.db}{suffix}").unlink(missing_ok=True)
    for kept in Path(f"{scene.db}.durable").glob(f"{scene.db.name}*"):
        if kept.suffix != ".new":
            shutil.copy(kept, scene.db.parent)
    return [finding for finding in scene.findings() if finding.kind == "lost"]


def _is_at_work(db: Path, pid: int) -> bool:
    """Whether a worker has something in its hands that it has not sent."""
    memory = open_slots(f"{db}.slots")
    try:
        reader = SlotReader(memory)
        slots = [slot for slot in range(SLOTS) if reader.identity(slot).pid == pid]
        return any(reader.entries(slot) for slot in slots)
    finally:
        memory.close()


def _lives(pid: int) -> bool:
    return state(pid) not in ("Z", "X", "")
