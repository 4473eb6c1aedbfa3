"""Whatever is submitted, finished, killed, cancelled and paused in whatever order: limits hold, and nothing is lost or doubled."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dq.crew import scheduler as module
from dq.crew.ledger import Function
from dq.executor.frames import Cancel, SetQueue
from dq.flow.queue import Queue
from tests.unit.crewroom import Guest, Hand, Room, open_room
from tests.unit.queueroom import SECOND, Gang, Watch, step, submits

BOOTS, ACTS = 3, 100
AS_IT_IS = (-1, -1, -1, -1)
COSTS = (-1, 1_000, 50_000_000)  # nanoseconds: unknown, short, long
QUEUES = [
    Queue("narrow", concurrency=2),
    Queue("keyed", concurrency=1, per_worker=1, key=str),
    Queue("metered", rate=(3, 5)),
    Queue("spread", per_worker=1),
]


class Office:
    """One supervisor's time, in which chance acts."""

    def __init__(self, room: Room, chance: random.Random, watch: Watch, asked: set[int]) -> None:
        self.room, self.chance, self.watch, self.asked = room, chance, watch, asked
        room.supervisor.scheduler.pools["cpu"].slots = chance.choice([1, 1, 3])
        self.functions = [
            step(room, queue, f"m:f{number}", cost=chance.choice(COSTS)) for number, queue in enumerate([*QUEUES, None])
        ]
        self.functions.append(step(room, QUEUES[0], "m:far", cost=chance.choice(COSTS), folder="/elsewhere"))
        self.gang = Gang(room, self.functions[0], 3, self.functions[-1])
        self.guests = [Guest(room) for _ in range(3)]
        self.slots = iter(range(4, 500))
        self.begun: list[int] = []

    def act(self) -> None:
        acts: list[Callable[[], None]] = [
            self.submit,
            self.give_out,
            self.finish,
            self.wait,
            self.kill,
            self.cancel,
            self.pause,
        ]
        self.chance.choices(acts, [35, 25, 20, 5, 5, 5, 2])[0]()
        self.check()

    def submit(self) -> None:
        function = self.chance.choice(self.functions)
        terms = [self.term(function) for _ in range(self.chance.randint(1, 6))]
        self.asked.update(submits(self.chance.choice(self.guests), function, *terms))

    def term(self, function: Function) -> dict[str, Any]:
        chance, term = self.chance, dict[str, Any]()
        if chance.random() < 0.5:
            term["priority"] = chance.randint(-1, 2)
        if function.queue is not None and function.queue.name == "keyed":
            term["key"] = chance.choice("xyz")
        if chance.random() < 0.15:
            term["after"] = chance.randint(1, 3) * SECOND
        if chance.random() < 0.15:
            term["dedup"] = chance.choice("pq")
            term["dedup_for"] = chance.choice([0, 4 * SECOND])
            term["debounce"] = chance.choice([0, 0, 2 * SECOND])
        return term

    def give_out(self) -> None:
        for id in self.gang.turn():
            hand, claim = self.gang.open[id]
            gate = hand.member.claims[claim.epoch].gate
            if gate is not None and gate.queue.name == "metered":
                self.begun.append(self.watch.micros)
        assert all(later - earlier > 5 * SECOND for earlier, later in zip(self.begun, self.begun[3:], strict=False))

    def finish(self) -> None:
        for id in self.chance.sample(list(self.gang.open), min(len(self.gang.open), self.chance.randint(1, 3))):
            self.gang.finishes(id)

    def wait(self) -> None:
        self.watch.passes(self.room, self.chance.random() * 3)

    def kill(self) -> None:
        hand = self.chance.choice(self.gang.hands)
        near = hand.member.lane is self.room.supervisor.scheduler.lane(self.functions[0])
        self.gang.dies(hand)
        self.gang.hands.append(Hand(self.room, self.functions[0 if near else -1], next(self.slots)))

    def cancel(self) -> None:
        some = self.chance.sample(sorted(self.asked), min(4, len(self.asked)))
        self.chance.choice(self.guests).says(Cancel(1, some))

    def pause(self) -> None:
        queue = self.chance.choice(QUEUES).name
        self.chance.choice(self.guests).says(SetQueue(1, queue, self.chance.choice([0, 1]), AS_IT_IS))

    def check(self) -> None:
        """Limits hold, and the books agree with what is there."""
        running, held = Counter[Any](), Counter[Any]()
        for hand, claim in self.gang.open.values():
            gate = hand.member.claims[claim.epoch].gate
            if gate is not None:
                running[gate] += 1
                held[gate, hand.member] += 1
        for gate, count in running.items():
            assert gate.running == count <= (gate.queue.limits.concurrency or count)
        for (gate, member), count in held.items():
            assert gate.held[member] == count <= (gate.queue.limits.per_worker or count)
        for lane in self.room.supervisor.scheduler.lanes.values():
            pending = sum(segment.size for queue in lane.queues.values() for segment in queue)
            for gate in lane.gates:
                lines = gate.waits[lane].lines.values()
                waiting = sum(segment.size for line in lines for queue in line.queues.values() for segment in queue)
                assert gate.waits[lane].count == waiting
                pending += waiting if gate.is_open else 0
            assert lane.pending == pending

    def drain(self) -> None:
        """Lets everything run to its end."""
        for queue in QUEUES:
            self.guests[0].says(SetQueue(1, queue.name, 0, AS_IT_IS))
        for _ in range(1000):
            if not self.room.supervisor.ledger.batches:
                break
            self.give_out()
            self.check()
            self.gang.finishes(*list(self.gang.open))
            self.watch.passes(self.room, 6)
        self.room.supervisor.committer.settle()
        self.watch.passes(self.room, 60)

    def nothing_is_left(self) -> None:
        scheduler = self.room.supervisor.scheduler
        assert scheduler._loaded_rows == scheduler._loaded_bytes == scheduler.claimed == 0
        assert not any(queue.gates for queue in self.room.supervisor.queues.by_name.values())
        assert not self.room.supervisor.dedups.open
        assert not self.room.supervisor.dedups._firsts
        assert self.room.rows("SELECT count(*) FROM dq_begin") == [(0,)]
        assert {step for (step,) in self.room.rows("SELECT step FROM dq_result")} == self.asked


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.soak) for n in range(2, 6))])
def test_limits_hold_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance, watch, asked = random.Random(seed), Watch(), set[int]()
    monkeypatch.setattr(module, "LOADED_ROWS", (0, 5, 50_000)[seed % 3])
    monkeypatch.setattr(module, "CHUNK", chance.choice([1, 3, 1024]))
    for boot in range(BOOTS):
        with open_room(tmp_path, workers=4, clock=watch) as room:
            office = Office(room, chance, watch, asked)
            for _ in range(ACTS):
                office.act()
            room.supervisor.committer.settle()
            if boot == BOOTS - 1:
                office.drain()
                office.nothing_is_left()
