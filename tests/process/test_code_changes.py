"""Old runs with new code: a file of workflows is edited between a kill and the next start, and `dq check` foretells it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dq
from tests.process.crews import rows
from tests.process.test_cli import call, loads, start
from tests.waiting import wait_until

_HEAD = """
import dq

@dq.step
def mark(word, count=0):
    with open("log", "a") as log:
        log.write(f"{word} {count}\\n")
    return count + 1

@dq.step
def stamp(word, count=0):
    with open("log", "a") as log:
        log.write(f"stamp {word} {count}\\n")
    return count + 1

@dq.step
def label(word, count=0):
    with open("log", "a") as log:
        log.write(f"label {word} {count}\\n")
    return count + 1
"""
_STARTER = """
import sys
import dq, flows

if __name__ == "__main__":
    with dq.Engine("f.db", workers=0) as engine:
        for name in sys.argv[1:]:
            engine.start(getattr(flows, name), id=name)
"""
# name -> (before, after): what the workflow does before it waits for the signal
_EDITS = {
    "added": ("mark('added')", "mark('added'); stamp('added')"),
    "removed": ("mark('removed'); stamp('removed')", "mark('removed')"),
    "renamed": ("mark('renamed'); stamp('renamed')", "mark('renamed'); label('renamed')"),
    "reordered": ("mark('reordered'); stamp('reordered')", "stamp('reordered'); mark('reordered')"),
    "swapped": ("mark('swapped', 1); mark('swapped', 2)", "mark('swapped', 2); mark('swapped', 1)"),
    "arguments": ("mark('arguments', count=1)", "mark('arguments', count=2)"),
}
_GUARDED = {
    f"patched_{name}": (
        before,
        f"({after.replace('; ', ', ')}) if dq.patched('{name}') else ({before.replace('; ', ', ')})",
    )
    for name, (before, after) in _EDITS.items()
}
_ALL = {**_EDITS, **_GUARDED}
_BREAK = {"swapped", "arguments", "signature"}
_NOTED = {"renamed"}


def _text(version: int) -> str:
    parts = [_HEAD]
    for name, versions in _ALL.items():
        body = versions[version]
        parts.append(
            f"@dq.workflow\ndef {name}():\n    {body}\n    dq.wait_signal('go')\n    return mark('{name} ends')\n"
        )
    takes = ("", "pages")[version]
    parts.append(
        f"@dq.workflow\ndef signature({takes}):\n    mark('signature')\n    dq.wait_signal('go')\n    return 1\n"
    )
    return "\n".join(parts)


def _log(place: Path) -> list[str]:
    return (place / "log").read_text().splitlines()


def _states(place: Path) -> dict[str, str]:
    return dict(rows(place / "f.db", "SELECT name, state FROM dq_run"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A file with a run of each workflow, whose crew was killed while they waited for their signals."""
    (tmp_path / "flows.py").write_text(_text(0))
    (tmp_path / "starter.py").write_text(_STARTER)
    _run_script(tmp_path, "starter.py", *_ALL, "signature")
    program = start(tmp_path, "up", "--db", "f.db", "--workers", "1")
    try:
        waiting = "SELECT count(*) FROM dq_steps WHERE name = 'dq:wait_signal' AND state = 'pending'"
        wait_until(lambda: rows(tmp_path / "f.db", waiting) == [(len(_ALL) + 1,)])
    finally:
        _kill_all(tmp_path, program.pid)
        program.communicate(timeout=20)
    return tmp_path


def _run_script(place: Path, *words: str) -> None:
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    subprocess.run([sys.executable, *words], cwd=place, env=environ, check=True, timeout=60)


def _kill_all(place: Path, keeper: int) -> None:
    """The keeper first, so that nobody brings the supervisor back; the crew dies with that."""
    os.kill(keeper, signal.SIGKILL)
    lock = place / "f.db.lock"
    if lock.exists() and (pid := lock.read_text().strip()):
        os.kill(int(pid), signal.SIGKILL)


def _finish(place: Path) -> str:
    with dq.Engine(place / "f.db", workers=0) as engine:
        for name in [*_ALL, "signature"]:
            engine.signal(name, "go")
    _, _, errors = call(place, "up", "--db", "f.db", "--workers", "1", "--until-idle")
    return errors


def test_each_edit_does_what_the_check_says(place: Path) -> None:
    before = sorted(_log(place))
    assert {told["id"]: told["outcome"] for told in loads(place, "check", "--db", "f.db")} == dict.fromkeys(
        [*_ALL, "signature"], "waiting"
    )

    (place / "flows.py").write_text(_text(1))
    code, out, errors = call(place, "check", "flows", "--db", "f.db", "--json")
    assert code == 4, errors
    told: dict[str, Any] = {one["id"]: one for one in json.loads(out)}
    assert {name for name, one in told.items() if one["breaks"]} == _BREAK
    assert {name for name, one in told.items() if any("under a new name" in note for note in one["notes"])} == _NOTED
    assert all(
        any("text of its workflow" in note for note in told[name]["notes"]) for name in _ALL if name not in _BREAK
    )
    assert "args[1]" not in told["arguments"]["reason"]
    assert "count: 1 -> 2" in told["arguments"]["reason"]
    assert "args[1]: 1 -> 2" in told["swapped"]["reason"]
    assert "now:      signature(pages)" in told["signature"]["reason"]
    assert sorted(_log(place)) == before  # nothing has run
    assert set(_states(place).values()) == {"running"}

    assert "3 runs are blocked" in _finish(place)
    assert {name for name, state in _states(place).items() if state == "blocked"} == _BREAK
    new = sorted(set(_log(place)) - set(before) - {f"{name} ends 0" for name in _ALL})
    assert new == ["label renamed 0", "stamp added 0"]

    (place / "flows.py").write_text(_text(0))
    with dq.Engine(place / "f.db", workers=0) as engine:
        for name in _BREAK:
            engine.resume(name)
    call(place, "up", "--db", "f.db", "--workers", "1", "--until-idle")
    assert set(_states(place).values()) == {"completed"}
    assert len(_log(place)) == len(before) + len(_ALL) + 2
