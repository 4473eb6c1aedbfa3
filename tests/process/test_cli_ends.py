"""How commands end: by a signal, by a kill, by a reader that is gone; and how the work goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dq.cli import exits
from tests.process.crews import members, rows
from tests.waiting import wait_until

LIMIT = 60.0  # seconds

# `gated` waits for the file "open"; every body leaves a line in the file "ran".
FLOWS = r"""
import os, time
import dq

def mark(text):
    fd = os.open("ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)

@dq.step
def square(number):
    mark(number)
    return number * number

@dq.step
def gated(number):
    mark("gated")
    while not os.path.exists("open"):
        time.sleep(0.01)
    mark("passed")
    return number

@dq.workflow
def waits(count):
    return sum(square.map(range(count))) + gated(VALUE)

VALUE = 100

if __name__ == "__main__":
    raise SystemExit("the script ran as a program")
"""


class Shell:
    """Runs `dq` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = folder / "f.db"
        self._started: list[subprocess.Popen[str]] = []
        (folder / "flows.py").write_text(FLOWS)

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dq", *words], cwd=self.folder, env={**os.environ, "DQ_DB": "f.db"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._started.append(process)
        return process

    def run(self, *words: str, code: int = exits.OK) -> str:
        """What a command says; fails unless it ends with the code."""
        process = self.start(*words)
        out, err = process.communicate(timeout=LIMIT)
        assert process.returncode == code, err
        return out + err if code else out

    def lines(self, text: str) -> int:
        path = self.folder / "ran"
        return path.read_text().splitlines().count(text) if path.exists() else 0

    def await_gated(self, times: int = 1) -> None:
        wait_until(lambda: self.lines("gated") == times, LIMIT, f"{times} bodies at the gate")

    def open_gate(self) -> None:
        (self.folder / "open").touch()

    def kill_supervisor(self) -> None:
        os.kill(int(Path(f"{self.db}.lock").read_text()), signal.SIGKILL)

    def end(self) -> None:
        self.open_gate()
        for process in self._started:
            if process.poll() is None:
                process.kill()
        # A supervisor outlives the `dq up` that has started it, and holds its pipes.
        with contextlib.suppress(OSError, ValueError):
            self.kill_supervisor()
        for pid in members(self.db):
            os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.communicate(timeout=LIMIT)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    try:
        yield shell
    finally:
        shell.end()


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code of a process that ends, and its standard error stream."""
    _, err = process.communicate(timeout=LIMIT)
    return process.returncode, err


def test_a_run_whose_command_and_supervisor_are_killed_goes_on_with_the_same_command(shell: Shell) -> None:
    words = ("run", "flows.py:waits", "5", "--id", "one", "--workers", "1")
    process = shell.start(*words)
    shell.await_gated()
    process.kill()
    shell.kill_supervisor()
    process.communicate()
    shell.open_gate()
    assert shell.run(*words) == "130\n"
    assert [shell.lines(str(number)) for number in range(5)] == [1] * 5
    assert (shell.lines("gated"), shell.lines("passed")) == (2, 1)


def test_interrupt_says_how_to_go_on(shell: Shell) -> None:
    process = shell.start("run", "flows.py:waits", "2", "--id", "one", "--workers", "1")
    shell.await_gated()
    process.send_signal(signal.SIGINT)
    shell.open_gate()
    code, err = end_of(process)
    assert code == exits.INTERRUPTED
    assert f"dq run flows.py:waits 2 --db {shell.db} --id one" in err
    assert "Traceback" not in err
    assert members(shell.db) == []
    assert shell.run("run", "flows.py:waits", "2", "--id", "one") == "101\n"


def test_a_run_whose_code_has_changed_is_blocked(shell: Shell) -> None:
    process = shell.start("run", "flows.py:waits", "2", "--id", "one", "--workers", "1")
    shell.await_gated()
    process.kill()
    shell.kill_supervisor()
    process.communicate()
    (shell.folder / "flows.py").write_text(FLOWS.replace("VALUE = 100", "VALUE = 200"))
    told = shell.run("run", "flows.py:waits", "2", "--id", "one", code=exits.BLOCKED)
    assert "100" in told
    assert "200" in told
    assert "blocked" in shell.run("ls")
    shell.run("up", "--until-idle", "--workers", "1", code=exits.BLOCKED)


def test_a_second_supervisor_is_refused_and_the_first_one_drains(shell: Shell) -> None:
    up = shell.start("up", "--workers", "1")
    shell.run("start", "flows.py:waits", "2", "--id", "one")
    shell.await_gated()
    owner = Path(f"{shell.db}.lock").read_text().strip()
    assert f"pid {owner}" in shell.run("up", code=exits.IN_USE)
    up.send_signal(signal.SIGTERM)
    shell.open_gate()
    assert end_of(up)[0] == exits.OK
    assert shell.lines("passed") == 1
    assert rows(shell.db, "SELECT count(*) FROM dq_result") == [(3,)]
    assert members(shell.db) == []


def test_the_second_signal_hands_running_steps_back(shell: Shell) -> None:
    shell.run("start", "flows.py:waits", "0", "--id", "one")
    up = shell.start("up", "--workers", "1", "--grace", "600")
    shell.await_gated()
    up.send_signal(signal.SIGINT)
    up.send_signal(signal.SIGTERM)
    code, err = end_of(up)
    assert code == exits.FAILED
    assert "handed back" in err
    assert rows(shell.db, "SELECT count(*) FROM dq_result") == [(0,)]
    assert members(shell.db) == []
    shell.open_gate()
    shell.run("up", "--until-idle", "--workers", "1")
    assert rows(shell.db, "SELECT state FROM dq_run") == [("completed",)]


def test_up_replaces_its_supervisor_as_often_as_it_is_killed(shell: Shell) -> None:
    shell.run("start", "flows.py:waits", "0", "--id", "one")
    up = shell.start("up", "--workers", "1", "--until-idle")
    for times in range(1, 4):
        shell.await_gated(times)
        shell.kill_supervisor()
    shell.open_gate()
    code, err = end_of(up)
    assert code == exits.OK
    assert err.count("was killed by SIGKILL; starting its successor") == 3
    assert rows(shell.db, "SELECT state FROM dq_run") == [("completed",)]


def test_whoever_only_puts_work_on_record_keeps_nobody_from_doing_it(shell: Shell) -> None:
    program = "import dq\nif __name__ == '__main__':\n with dq.Engine('f.db', workers=0): print(flush=True), input()\n"
    (shell.folder / "holder.py").write_text(program)
    shell.open_gate()
    with subprocess.Popen(
        [sys.executable, "holder.py"], cwd=shell.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        run = shell.start("run", "flows.py:waits", "0", "--workers", "1")
        wait_until(lambda: rows(shell.db, "SELECT count(*) FROM dq_run") == [(1,)])
        holder.communicate(b"\n")
    out, errors = run.communicate(timeout=LIMIT)
    assert out == "100\n", errors


def test_whoever_reads_a_list_may_stop_reading(shell: Shell) -> None:
    shell.run("start", "flows.py:waits", "3", "--id", "one")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dq", "ls", "--db", str(shell.db)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (exits.OK, "")


def test_help_imports_nothing_heavy() -> None:
    program = "import sys; from dq.cli.main import main; main(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    heavy = ("apsw", "asyncio", "cloudpickle", "greenlet", "msgspec", "psutil", "rich", "tenacity")
    assert not [name for name in heavy if f"'{name}'" in out]
