"""What the sweeps over frames and bytes have found, each as a case of its own."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dq.executor import frames, options
from dq.executor.frames import BadFrame, Message, Results, decode, encode
from dq.executor.options import CHECKPOINT, SUPERVISOR
from dq.model.states import COMPLETED, FAILED, RETRY
from tests.unit.crewroom import Guest, Hand
from tests.unit.hostroom import lodge

_DEFINE = frames.Define(1, "m:f", "step", b"d" * 16, b"", "", 3)


def test_options_whose_text_is_no_text_are_none() -> None:
    packed = options.pack(options.Options(on_crash="park", version="v")).replace(b"park", b"p\xffrk")
    with pytest.raises(msgspec.MsgspecError):
        options.unpack(packed)


def test_text_that_is_no_text_is_no_frame() -> None:
    body = encode(_DEFINE)[4:].replace(b"m:f", b"m\xfff")
    with pytest.raises(BadFrame):
        decode(body)


@pytest.mark.parametrize(
    "message",
    [
        msgspec.structs.replace(_DEFINE, kind="stroll"),
        msgspec.structs.replace(_DEFINE, max_crashes=1 << 63),
        frames.Finish(1, "running", b""),
        frames.Finish(1, "done", b""),
        frames.Steps([], [frames.Term(1, after=1 << 63)]),
        frames.Steps([], [frames.Term(1, at=-(1 << 63))]),
    ],
    ids=["kind", "max-crashes", "state-running", "state-done", "after", "at"],
)
def test_what_the_file_could_not_hold_is_no_frame(message: Message) -> None:
    """Integers have room for a time to be added, and words are those that the file knows."""
    with pytest.raises(BadFrame):
        decode(encode(message)[4:])


def test_options_with_a_number_that_the_file_could_not_hold() -> None:
    with pytest.raises(msgspec.MsgspecError):
        options.unpack(options.pack(options.Options(timeout=1 << 63)))


def test_ids_that_are_not_a_clients_to_use(tmp_path: Path) -> None:
    """Neither those that were never given out, nor a host's."""
    with lodge(tmp_path) as inn:
        function = inn.room.function()
        inn.guest.client.functions[function.id] = function
        for id in (0, -1, inn.supervisor.ledger.next_id, next(inn.ids)):
            with pytest.raises(BadFrame):
                inn.supervisor.clients.hear(inn.guest.client, frames.Submit([(id, function.id, b"args")]))


def test_an_id_of_another_connection_is_one_thing_whoever_says_it(tmp_path: Path) -> None:
    """The first one to say it has it; the other one's step of that id is the same, and no error of the file."""
    with lodge(tmp_path) as inn:
        other, function = Guest(inn.room), inn.room.function()
        [id] = other.submits(function, 1)
        first, _ = inn.supervisor.clients._lease_to(other.client)
        inn.guest.client.functions[function.id] = function
        for stolen in (id, first):
            inn.guest.says(frames.Submit([(stolen, function.id, b"args")]))
        inn.turn()
        other.says(frames.Submit([(first, function.id, b"args")]))
        inn.turn()
        assert inn.room.rows(f"SELECT count(*) FROM dq_step WHERE id IN ({id}, {first})") == [(2,)]


def test_a_hosts_steps_have_its_own_ids_and_functions(tmp_path: Path) -> None:
    with lodge(tmp_path) as inn:
        run, function = inn.start("r"), inn.room.function()
        inn.supervisor.hosts.functions[inn.host][function.id] = function
        mine, theirs = next(inn.ids), inn.first
        for id, number in ((theirs, function.id), (mine, 99)):
            with pytest.raises(BadFrame):
                inn.supervisor.hosts.hear(
                    inn.host, frames.Steps([(id, run.id, number, "0", 0, b"g" * 16, b"args")], [])
                )


def test_a_checkpoint_of_no_chapter_is_refused(tmp_path: Path) -> None:
    """The supervisor would not know with which chapter its run goes on."""
    with lodge(tmp_path) as inn:
        run, function = inn.start("r"), inn.room.function(CHECKPOINT, executor=SUPERVISOR)
        inn.supervisor.hosts.functions[inn.host][function.id] = function
        row = (next(inn.ids), run.id, function.id, "completed", 0, b"g" * 16, b"args")
        with pytest.raises(BadFrame, match="no chapter"):
            inn.supervisor.hosts.hear(inn.host, frames.Steps([row], []))
        assert inn.room.rows("SELECT count(*) FROM dq_step") == [(0,)]


@pytest.mark.parametrize(
    "said",
    [
        [(COMPLETED, b"result"), (FAILED, b"other")],
        [(RETRY, b"\0" * 8 + b"other"), (COMPLETED, b"result")],
    ],
    ids=["ends-twice", "again"],
)
def test_who_waits_for_a_step_hears_what_is_on_record(tmp_path: Path, said: list[tuple[int, bytes]]) -> None:
    """A frame that names a step twice counts once, for the client as for the file."""
    with lodge(tmp_path) as inn:
        function = inn.room.function()
        hand = Hand(inn.room, function, 0)
        [id] = inn.guest.submits(function, 1)
        inn.turn()
        [claim] = hand.claims()
        rows = [(id, status, payload, 1, 1) for status, payload in said]
        inn.supervisor.results.take(hand.member, Results(claim.epoch, rows))
        inn.turn()
        told = [row[:3] for message in inn.guest.hears(Results) for row in message.rows]
        assert told == [(id, COMPLETED, b"result")]
        assert inn.results() == {id: ("completed", b"result")}
        assert inn.room.rows("SELECT count(*) FROM dq_attempt") == [(0,)]


def test_a_step_with_a_status_that_there_is_not_is_not_lost(tmp_path: Path) -> None:
    """Its worker goes, and it begins again."""
    with lodge(tmp_path) as inn:
        function = inn.room.function(cost=1000)
        hand = Hand(inn.room, function, 0)
        one, two = inn.guest.submits(function, 2)
        inn.turn()
        [claim] = hand.claims()
        with pytest.raises(BadFrame, match="status 77"):
            inn.supervisor.results.take(
                hand.member, Results(claim.epoch, [(one, 77, b"other", 1, 1), (two, COMPLETED, b"result", 1, 1)])
            )
        inn.dies(hand.member)
        again = Hand(inn.room, function, 1)
        inn.turn()
        [claim] = again.claims()
        assert [row[0] for row in claim.rows] == [one]
        assert inn.results() == {two: ("completed", b"result")}
