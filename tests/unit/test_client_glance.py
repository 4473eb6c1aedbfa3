"""A look at a supervisor: what it tells, and what comes of one that does not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dq.cli.doctor import owner
from dq.cli.doctor.finding import NOTE, WARNING, Finding
from dq.client.glance import glance
from dq.executor import frames
from dq.executor.link import Link
from dq.model.states import RunState
from tests.unit.crewroom import Guest, Hand, Room, open_room

CREW = frames.Crew(1, 3, [("supervisor", 7, -1, 0, 0, 0)], 2, 1, 4)
WELCOME = frames.Welcome(3, 7, 1, 64)


def test_what_comes_too_late_is_counted_and_told(tmp_path: Path) -> None:
    with open_room(tmp_path) as room:
        function = room.function()
        hand, guest = Hand(room, function, 0), Guest(room)
        [step] = guest.submits(function, 1)
        room.turn()
        [claim] = hand.claims()
        hand.finishes(claim, step)
        assert _census(room, guest).stale == 0
        hand.finishes(claim, step)
        room.supervisor.hosts.hear(hand.member, frames.Finish(999, RunState.COMPLETED, b"presult"))
        room.supervisor.hosts.hear(hand.member, frames.Block(999, "why"))
        assert _census(room, guest).stale == 3
        assert room.rows("SELECT step, state FROM dq_result") == [(step, "completed")]


def _census(room: Room, guest: Guest) -> frames.Crew:
    guest.says(frames.Census(1))
    [crew] = guest.hears(frames.Crew)
    assert isinstance(crew, frames.Crew)
    return crew


def test_a_look_brings_no_place_that_code_comes_from_and_hangs_up() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        link = Link(theirs)
        for message in (WELCOME, CREW):
            link.send(message)
        crew = glance(ours, 30)
        assert crew is not None
        assert (crew.boot_epoch, crew.rows[0].pid, crew.pending, crew.claimed, crew.stale) == (3, 7, 2, 1, 4)
        hello = link.receive()[0]
        assert (hello.context, hello.works) == (None, False)
        assert ours.fileno() == -1


def test_who_is_sent_away_has_seen_nothing() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        Link(theirs).send(frames.Refused(0, "SignatureMismatch", "another key"))
        assert glance(ours, 30) is None
    ours, theirs = socket.socketpair()
    theirs.close()
    assert glance(ours, 30) is None


def test_who_does_not_answer_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(TimeoutError):
        glance(ours, 0.01)
    assert ours.fileno() == -1


@contextmanager
def answering(db: Path, *told: Any) -> Iterator[None]:
    """Somebody at the door of a file who says what is given, whatever he is asked."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{db}.sock")
        door.listen()
        over = threading.Event()

        def answer() -> None:
            sock, _ = door.accept()
            with sock:
                link = Link(sock)
                for message in told:
                    link.send(message)
                over.wait()

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        over.set()
        thread.join()


def _findings(db: Path) -> dict[str, Finding]:
    return {one.check: one for one in owner.check(str(db), owner.NOBODY)}


def test_the_doctor_tells_of_late_results_as_a_note(tmp_path: Path) -> None:
    with answering(tmp_path / "f.db", WELCOME, CREW):
        told = _findings(tmp_path / "f.db")["late results"]
    assert told.level == NOTE
    assert told.what.startswith("4 results have come too late")


def test_the_doctor_says_that_a_supervisor_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "PATIENCE", 0.01)
    with answering(tmp_path / "f.db"):
        told = _findings(tmp_path / "f.db")["owner"]
    assert told.level == WARNING
    assert "has not answered" in told.what
