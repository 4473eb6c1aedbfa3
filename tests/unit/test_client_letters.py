"""How dead letters are told: one cause has one fingerprint, and evidence is read from what was written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from dq.cli.evidence import attempt
from dq.client.letters import DeadLetter, groups, letter
from dq.client.upkeep import kept
from dq.executor.failures import Failure
from dq.executor.frames import Letter
from dq.model.payload import FAILURE, seal
from dq.store.reader import AttemptLine


def told(
    text: str, *, name: str = "m:f", type: str = "ValueError", traceback: str = "", id: int = 1, at: int = 0
) -> DeadLetter:
    payload = seal(FAILURE, msgspec.msgpack.encode(Failure(type, text, traceback, b"")))
    return letter(Letter(id, "", name, "failed", "open", None, 2, 77, 5, at, payload))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no file '/tmp/a-1'", "no file '/tmp/b-22'"),
        ("object at 0x7f00aa", "object at 0x7f00bb"),
        ("took 1.5 s, 3 tries", "took 22.75 s, 4 tries"),
        ("digest deadbeef00", "digest 1234abcd99"),
        ('key "x"', 'key "y"'),
    ],
)
def test_what_varies_does_not_count(one: str, other: str) -> None:
    assert told(one).fingerprint == told(other).fingerprint


def test_what_is_another_cause_counts() -> None:
    marks = {
        told("no file").fingerprint,
        told("no folder").fingerprint,
        told("no file", name="m:g").fingerprint,
        told("no file", type="KeyError").fingerprint,
        told("no file", traceback="in f").fingerprint,
    }
    assert len(marks) == 5


def test_groups_count_and_name_the_latest() -> None:
    letters = [told("bad 1", id=1, at=10), told("bad 2", id=2, at=30), told("bad 3", id=3, at=20), told("else", id=4)]
    most, least = groups(letters)
    assert (most.times, most.example, most.text) == (3, 2, "bad 2")
    assert (most.first, most.last) == (datetime.fromtimestamp(1e-5, UTC), datetime.fromtimestamp(3e-5, UTC))
    assert least.times == 1


def test_a_run_is_asked_for_by_its_name_and_a_step_by_its_number() -> None:
    row = Letter(9, "movie-1", "m:movie", "failed", "open", None, 0, 0, 0, 0, b"")
    run = letter(row)
    assert (run.id, run.is_run) == ("movie-1", True)
    step = letter(msgspec.structs.replace(row, ended="dead", attempt=3))
    assert (step.id, step.run, step.is_run) == (9, "movie-1", False)


def test_a_payload_that_can_t_be_read_is_told_as_such() -> None:
    made = letter(Letter(9, "", "m:f", "failed", "open", None, 0, 0, 0, 0, b"p0000rest"))
    assert made.type == "dq.errors.DamagedPayload"


def test_evidence_is_taken_apart() -> None:
    cause = (
        "stopped for more than 10 s; the worker was ended by SIGKILL, peak memory 512 MiB; the kernel killed for want of "
        "memory; its last stack:\nThread 0x1\n  File f"
    )
    made = attempt(AttemptLine(1, 2, 3, "crashed", 77, 1, cause, None, 1))
    assert (made["signal"], made["exit_code"], made["peak_mib"], made["out_of_memory"]) == ("SIGKILL", None, 512, True)
    assert made["stack"] == "Thread 0x1\n  File f"
    left = attempt(AttemptLine(1, 2, 3, "crashed", 77, 1, "the worker exited with code 3, peak memory 9 MiB", None, 1))
    assert (left["signal"], left["exit_code"], left["peak_mib"], left["stack"]) == (None, 3, 9, None)


def test_how_long_things_are_kept_is_checked() -> None:
    assert kept(None) == 0
    assert kept(timedelta(days=1)) == 86_400
    with pytest.raises(ValueError, match="keep is 0:00:00"):
        kept(timedelta())
