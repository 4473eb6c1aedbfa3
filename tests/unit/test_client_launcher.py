"""How a client finds or starts a supervisor, and what it makes of its first words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dq import errors
from dq.client import launcher
from dq.client.launcher import Launcher, Options
from tests.unit.standin import Standin


def speaks(text: str, code: int = 3) -> str:
    return f"import os, sys; os.write(int(sys.argv[1]), {text.encode()!r}); sys.exit({code})"


def play(monkeypatch: pytest.MonkeyPatch, program: str) -> list[str]:
    """Has a program of the test stand for the supervisor; returns the databases it was started for."""
    started: list[str] = []

    def spawn(db: str, options: Options, signer: object = None) -> tuple[subprocess.Popen[bytes], int]:
        started.append(db)
        reader, writer = os.pipe()
        child = subprocess.Popen([sys.executable, "-c", program, str(writer)], pass_fds=(writer,))
        os.close(writer)
        return child, reader

    monkeypatch.setattr(launcher, "_spawn", spawn)
    return started


@pytest.mark.parametrize("name", ["NoSuchFolder", "NotADatabase", "NewerSchema", "BadExecutor", "DiskFull"])
def test_a_supervisor_that_can_not_work_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    play(monkeypatch, speaks(f'{{"pid": 7, "error": "{name}", "text": "because"}}\n'))
    with pytest.raises(getattr(errors, name), match="because"):
        Launcher(str(tmp_path / "f.db"), Options()).connect()


def test_a_file_in_use_names_the_pid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, speaks('{"pid": 77, "error": "DatabaseInUse", "text": "in use"}\n'))
    with pytest.raises(errors.DatabaseInUse) as caught:
        Launcher(str(tmp_path / "f.db"), Options()).start()
    assert caught.value.pid == 77


def test_who_waits_for_a_file_in_use_gets_the_supervisor_when_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = play(monkeypatch, speaks('{"pid": 77, "error": "DatabaseInUse", "text": "in use"}\n'))
    standins: list[Standin] = []

    def pause(seconds: float) -> None:
        standins.append(Standin(tmp_path / "f.db"))

    Launcher(str(tmp_path / "f.db"), Options()).connect(pause=pause).close()
    assert started == [str(tmp_path / "f.db")]
    standins[0].die()


@pytest.mark.parametrize("text", ["", "half a li", "[]\n", "not json\n"])
def test_a_supervisor_that_ends_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    play(monkeypatch, speaks(text, 9))
    subject = Launcher(str(tmp_path / "f.db"), Options())
    with pytest.raises(errors.SupervisorLost, match="exit code 9"):
        subject.connect()
    assert subject.child == 0


def test_a_name_that_is_no_error_of_dq_is_shown() -> None:
    assert str(launcher.revive("KeyError", "x")) == "KeyError: x"
    assert type(launcher.revive("StepError", "x")) is errors.DqError


def test_somebody_else_is_given_time_to_start_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = play(monkeypatch, speaks(""))
    standins: list[Standin] = []

    def pause(seconds: float) -> None:
        if not standins:
            standins.append(Standin(tmp_path / "f.db"))

    Launcher(str(tmp_path / "f.db"), Options()).connect(60.0, pause).close()
    assert not started
    standins[0].die()


def test_ctrl_c_while_the_child_stops_makes_it_hurry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child drains on the first signal and ends on the second, as a supervisor does."""
    play(
        monkeypatch,
        "import os, signal, sys\n"
        "signals = {signal.SIGTERM}\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signals)\n"
        "os.write(int(sys.argv[1]), b'{\"error\": null}\\n')\n"
        "signal.sigwait({signal.SIGTERM})\n"
        "signal.sigwait({signal.SIGTERM})\n"
        "sys.exit(4)\n",
    )
    subject = Launcher(str(tmp_path / "f.db"), Options())
    subject.start()
    child = subject._child
    assert child is not None
    patched = pytest.MonkeyPatch()

    def interrupted(timeout: float | None = None) -> int:
        patched.undo()
        raise KeyboardInterrupt

    patched.setattr(child, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        subject.wait(child.pid)
    assert child.returncode == 4


def test_the_options_are_words_of_the_command_line(tmp_path: Path) -> None:
    options = Options(3, {"io": "thread:8"}, "spawn", 1.5, 2.5)
    words = [
        "--start-method",
        "spawn",
        "--hang",
        "1.5",
        "--grace",
        "2.5",
        "--workers",
        "3",
        "--executor",
        "io=thread:8",
    ]
    assert options.words() == [*words, "--ephemeral"]
    assert "--workers" not in Options().words()
