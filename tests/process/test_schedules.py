"""Schedules among real processes: a supervisor that is killed between two times, commands, engines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import dq
from dq.cli.main import main
from dq.client.schedules import pick
from tests.process import timetable
from tests.process.crews import rows, serving
from tests.process.flows import lines
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "schedules.md").read_text()
_RUNS = "SELECT name, scheduled_at FROM dq_run ORDER BY scheduled_at"


def test_a_supervisor_is_killed_between_two_times_and_none_is_lost(tmp_path: Path) -> None:
    db = tmp_path / "f.db"
    with dq.Client(db) as client:
        client.schedule(timetable.punctual, None, str(tmp_path), every=1, id="tick", catch_up="all")
    with serving(db, "--workers", "2") as process:
        wait_until(lambda: rows(db, _RUNS), what="a first time")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (before, *_) = rows(db, _RUNS)[-1:]
    wait_until(lambda: time.time() * 1e6 > before[1] + 2_000_000, what="times that nobody is there for")
    with serving(db, "--workers", "2"):
        done = "SELECT count(*) FROM dq_run WHERE state = 'completed'"
        wait_until(lambda: rows(db, done)[0][0] > 3, what="all of them")
    fired = rows(db, _RUNS)
    moments = [datetime.fromtimestamp(at / 1e6, UTC) for _, at in fired]
    assert [name for name, _ in fired] == [f"tick@{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in moments]
    assert moments == [moments[0] + timedelta(seconds=number) for number in range(len(fired))]
    noted = {line.removeprefix("at ") for line in lines(tmp_path)}
    assert len(noted) >= 4
    assert noted <= {name.removeprefix("tick@") for name, _ in fired}


def test_what_an_engine_does_with_schedules(tmp_path: Path) -> None:
    with dq.Client(tmp_path / "f.db") as client:
        with pytest.raises(dq.BadSchedule, match=r"say which schedule .* id=\.\.\. is one of marked, nightly"):
            client.schedule(timetable.marked)
        nightly = client.schedule(timetable.marked, id="nightly")
        assert (nightly.tz, nightly.catch_up, nightly.overlap) == ("Europe/Berlin", "one", "skip")
        assert nightly.next_at is not None
        hourly = client.schedule(timetable.marked, None, "here", every=timedelta(hours=1), overlap="queue")
        assert (hourly.id, hourly.expression, hourly.overlap) == ("marked", "every 3600 s", "queue")
        hourly.pause()
        assert (hourly.paused, hourly.next_at) == (True, None)
        assert client.schedule(timetable.marked, id="marked").paused
        hourly.resume()
        assert hourly.next_at is not None
        run = hourly.trigger()
        assert run.id.startswith("marked@manual-")
        assert [schedule.id for schedule in client.schedules()] == ["marked", "nightly"]
        assert pick(client.schedules(), "marked").last_run == run.id
        with pytest.raises(dq.ScheduleConflict, match=r"'nightly' starts .*:marked, and this .*:punctual"):
            client.schedule(timetable.punctual, "* * * * *", id="nightly")
        with pytest.raises(dq.BadSchedule, match="more than 256 KiB"):
            client.schedule(timetable.punctual, "* * * * *", bytes(1 << 19))
        with pytest.raises(dq.BadSchedule, match=r"no @dq\.schedule, so say when"):
            client.schedule(timetable.punctual)
        with pytest.raises(dq.BadSchedule, match=r"all is as @dq\.schedule says"):
            client.schedule(timetable.marked, id="nightly", tz="UTC")
        client.unschedule("nightly")
        with pytest.raises(dq.NoSuchSchedule, match="those that are: marked"):
            client.unschedule("nightly")


def _environ() -> dict[str, str]:
    return dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), NO_COLOR="1")


def test_up_puts_the_marks_of_a_file_on_record(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(
        "import dq\n@dq.schedule('0 3 * * *', id='nightly')\n@dq.workflow\ndef report(): ...\n"
    )
    command = [sys.executable, "-m", "dq", "up", "flows.py", "--workers", "1", "--until-idle"]
    done = subprocess.run(
        command, cwd=tmp_path, text=True, capture_output=True, check=False, timeout=60, env=_environ()
    )
    assert done.returncode == 0, done.stderr
    assert "schedule nightly: 0 3 * * *, next at " in done.stderr
    assert rows(tmp_path / "dq.db", "SELECT id, expression FROM dq_schedule") == [("nightly", "0 3 * * *")]


def test_schedules_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = str(tmp_path / "f.db")

    def said(*words: str, code: int = 0) -> tuple[str, str]:
        assert main(["schedules", *words, "--db", db]) == code
        return capsys.readouterr()

    with dq.Client(db) as client:
        client.schedule(timetable.punctual, "0 3 * * *", str(tmp_path), id="nightly")
    assert re.search(r"^nightly +\S+:punctual +0 3 \* \* \* +UTC +20", said()[0], re.MULTILINE)
    assert said("pause", "nightly") == ("schedule nightly is paused\n", "")
    (listed,) = json.loads(said("--json")[0])
    assert (listed["paused"], listed["next_at"]) == (True, None)
    assert json.loads(said("trigger", "nightly", "--json")[0])["run"].startswith("nightly@manual-")
    assert said("delete", "nightly") == ("schedule nightly is deleted\n", "")
    assert said()[0].startswith("no schedules")
    assert "there is no schedule 'nightly' in the file" in said("delete", "nightly", code=2)[1]
    assert "Say which schedule" in said("pause", code=2)[1]


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)[:1]
    (tmp_path / "flows.py").write_text(text)
    command = [sys.executable, "flows.py"]
    done = subprocess.run(
        command, cwd=tmp_path, text=True, capture_output=True, check=False, timeout=60, env=_environ()
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"next at \d\d\d\d-\d\d-\d\d \d\d:30:00\+00:00", first)
    assert second == "3 rows for by hand"
