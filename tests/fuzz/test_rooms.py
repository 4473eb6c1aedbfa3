"""A supervisor that is told nonsense by a client, a worker or a host: that one goes, the others' work is done."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest

from dq.crew.door import Door
from dq.crew.members import Member
from dq.executor import frames
from dq.executor.frames import VERSION, Hello, Message, Results, Welcome
from dq.executor.link import Closed, Link
from tests.fuzz.chatter import KINDS, Chatter
from tests.sweeps import tally
from tests.unit.crewroom import CONTEXT, Hand
from tests.unit.hostroom import Lodge, lodge

_ROUND = 50  # frames that one supervisor is told
_ANY = tuple(kind for kind in KINDS if kind is not frames.Sweep)  # which takes away what the others have done
_OF_WORKERS = (Results, frames.Progress, frames.Effects, frames.Unfit, frames.Joined)
_OF_HOSTS = (
    frames.Steps, frames.Steps, frames.More, frames.Withdraw, frames.Define, frames.Finish, frames.Block, frames.Lease,
)  # fmt: skip


class Bench:
    """A supervisor with an honest client and worker, a door, and a rogue who says what it likes."""

    def __init__(self, inn: Lodge, folder: Path, dice: random.Random) -> None:
        self.inn, self.room, self.supervisor = inn, inn.room, inn.supervisor
        self.chatter = Chatter(dice)
        self.step = self.room.function()
        self.run = inn.start("r")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "s"))
        self.listener.listen()
        self.door = Door(self.supervisor, self.listener)
        self.supervisor.staff._start = lambda nursery, now: None  # type: ignore[method-assign]  # there are no processes
        self.room.sockets.append(self.listener)
        self._address = str(folder / "s")
        self.gone = 0
        self.done: dict[int, bytes] = {}  # what the honest client has heard
        self.submitted: list[int] = []

    def turn(self) -> None:
        """What the supervisor's loop does, until nothing more comes of it."""
        while self.supervisor.poller.poll(0):
            pass
        self.supervisor.timers.run(time.monotonic())
        if self.inn.host.peer.fd >= 0:
            self.inn.turn()

    def dial(self) -> Link:
        """A client that has introduced itself."""
        sock = socket.socket(socket.AF_UNIX)
        self.room.sockets.append(sock)
        sock.connect(self._address)
        sock.settimeout(20)
        link = Link(sock)
        link.send(Hello(VERSION, 1, b"n" * 16, CONTEXT))
        self.turn()
        self.turn()
        [welcome] = [message for message in link.poll() if isinstance(message, Welcome)]
        self.chatter.ids = [1, 2, welcome.first, welcome.first + 1, self.run.id, self.step.id, self.inn.flow.id]
        return link

    def is_over(self, link: Link) -> bool:
        """Whether the supervisor has hung up."""
        try:
            link.poll()
        except (Closed, ConnectionError):
            self.gone += 1
            return True
        return False

    def honest_work(self, hand: Hand) -> None:
        """A step that somebody else wants: done, and heard of."""
        self.submitted += self.inn.guest.submits(self.step, 1)
        for _ in range(8 * _ROUND):  # what the rogues have left comes first
            self.turn()
            for claim in hand.claims():
                hand.finishes(claim)
            for message in self.inn.guest.hears(Results):
                self.done.update((row[0], row[2]) for row in message.rows)
            if self.submitted[-1] in self.done:
                return
        raise AssertionError("the others' work is not done")


@contextmanager
def bench(folder: Path, seed: int) -> Iterator[Bench]:
    folder.mkdir()
    with lodge(folder) as inn:
        place = Bench(inn, folder, random.Random(seed))
        yield place
        clients = inn.supervisor.clients
        for peer in [*place.door._strangers, *clients.leaving, *(client.peer for client in clients.all.values())]:
            peer.close()
    with closing(connect(folder / "f.db")) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    (folder / "f.db.slots").unlink()  # each of them has 4 MB


def as_client(place: Bench) -> int:
    """Frames at the door; returns how many."""
    hand = Hand(place.room, place.step, 0)
    kinds = [kind for kind in place.supervisor.clients._handlers if kind in _ANY]
    link = place.dial()
    for count in range(_ROUND):
        try:
            link.send_bytes(place.chatter.frame(*(kinds if place.chatter.dice.random() < 0.9 else _ANY)))
        except Closed:
            pass
        place.turn()
        if place.is_over(link):
            link = place.dial()
        if count % 10 == 0:
            place.honest_work(hand)
    place.honest_work(hand)
    return _ROUND


def _overhear(place: Bench, member: Member, theirs: Link, kinds: list[type[Message]], count: int) -> int:
    """A member says so many frames, or fewer if it is killed for one; returns how many."""
    for said in range(count):
        peer = member.peer
        theirs.send_bytes(place.chatter.frame(*(kinds if place.chatter.dice.random() < 0.9 else _ANY)))
        place.supervisor._on_member(member, 1)
        place.turn()
        if place.inn.killed or peer.closed:
            return said + 1
    return count


def as_worker(place: Bench) -> int:
    """Frames of workers, one after the other, each killed for its first bad word."""
    said = number = 0
    while said < _ROUND:
        hand = Hand(place.room, place.step, number % 2)
        number += 1
        place.inn.guest.submits(place.step, 3)
        place.turn()
        claims = hand.claims()
        place.chatter.ids = [place.run.id, *[c.epoch for c in claims], *[row[0] for c in claims for row in c.rows]] * 2
        said += _overhear(place, hand.member, hand.link, list(_OF_WORKERS), _ROUND - said)
        place.gone += bool(place.inn.killed)
        place.inn.killed.clear()
        place.inn.dies(hand.member)
    hand = Hand(place.room, place.step, number % 2)
    place.honest_work(hand)
    return said


def as_host(place: Bench) -> int:
    """Frames of hosts, the same way."""
    said, hand, inn = 0, Hand(place.room, place.step, 0), place.inn
    while said < _ROUND:
        first = next(inn.ids)
        functions = place.supervisor.hosts.functions[inn.host]
        built = [
            inn.builtin(f"dq:{name}") for name in ("sleep", "wait_signal", "signal", "publish", "patched", "checkpoint")
        ]
        functions.update(dict(enumerate([place.step, inn.flow, *built], 1)))
        runs = [*inn.host.runs]
        place.chatter.ids = [*range(1, 9), *range(first, first + 12), *runs, *runs, *runs]
        said += _overhear(place, inn.host, inn.link, list(_OF_HOSTS), _ROUND - said)
        place.gone += bool(inn.killed)
        inn.killed.clear()
        inn.dies(inn.host)
        inn.move_in()
        place.honest_work(hand)
    place.honest_work(hand)
    return said


ROLES: dict[str, Any] = {"client": as_client, "worker": as_worker, "host": as_host}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("seed", "count"), [(0, 400), *[pytest.param(part * 1000, 5000, marks=pytest.mark.soak) for part in range(1, 7)]]
)
def test_nonsense_ends_its_sender_alone(
    tmp_path: Path, role: str, seed: int, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The supervisor goes on, says whom it sent away, and tells the others what is on record."""
    began, said, gone, first = time.monotonic(), 0, 0, seed
    while said < count:
        with bench(tmp_path / f"{seed}", seed) as place:
            said += ROLES[role](place)
            told = place.room.rows("SELECT step, payload FROM dq_result")
            assert place.done.items() <= dict(told).items(), seed
            gone += place.gone
        told_of = capfd.readouterr().err.count("sent what makes no sense")
        assert told_of >= place.gone, "whoever goes is told of"
        seed += 1
    tally("fuzzed payloads and frames", said, seeds=f"{first}-{seed - 1}", began=began, crashed=0, wrong=0)
    assert gone > seed - first, "some of it was nonsense"
