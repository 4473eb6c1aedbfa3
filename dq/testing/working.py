"""The part of the suite in which nothing goes wrong."""

from __future__ import annotations

import os
import pickle

from dq.executor.slots import UNSENT, WORKER
from dq.model.payload import FILE
from dq.model.states import COMPLETED
from dq.testing import bodies
from dq.testing.bound import Bound
from dq.testing.rig import BOOT, Forge, Member, wait_until


class Working(Bound):
    """Work is done, all of it, once, by whom it was given to."""

    def test_a_member_signs_its_slot_before_it_joins(self, member: Member) -> None:
        identity = member.identity()
        assert identity[:5] == (BOOT, member.pid, member.joined.started, member.nonce, WORKER)
        assert member.joined.pid == member.pid
        assert member.joined.nonce == member.nonce

    def test_a_member_beats(self, member: Member) -> None:
        before = member.identity().beat
        wait_until(lambda: member.identity().beat > before + 1, "a beat")

    def test_the_members_of_a_pool_are_processes_apart(self, forge: Forge, folder: str) -> None:
        count = forge.executor.members(forge.size)
        members = [forge.member(folder, slot) for slot in range(count)]
        try:
            assert sorted(member.run(bodies.pid) for member in members) == sorted(member.pid for member in members)
        finally:
            for member in members:
                member.close()

    def test_every_step_has_one_result(self, member: Member) -> None:
        epochs: dict[int, int] = {}
        for _ in range(5):
            epoch, steps = member.claim(*[(bodies.give, n) for n in range(200)])
            epochs |= dict.fromkeys(steps, epoch)
        rows = member.results(1000)
        assert {row.step: row.epoch for row in rows} == epochs
        assert sorted(member.open(row) for row in rows) == sorted([*range(200)] * 5)
        member.stop()
        assert member.nothing_more()
        assert not [entry for entry in member.entries() if entry.mark != UNSENT]

    def test_a_serial_member_keeps_the_order(self, forge: Forge, member: Member) -> None:
        _, steps = member.claim(*[(bodies.give, n) for n in range(300)])
        rows = member.results(300)
        if forge.executor.serial:
            assert [row.step for row in rows] == steps
        assert {row.step: member.open(row) for row in rows} == dict(zip(steps, range(300), strict=True))

    def test_a_result_tells_when_and_how_long(self, member: Member) -> None:
        member.claim((bodies.give, 1), (bodies.give, 2))
        first, second = sorted(member.results(2), key=lambda row: row.began_at)
        assert 0 < first.busy < 60 * 10**9
        assert first.began_at <= second.began_at < first.began_at + 600 * 10**6

    def test_lambdas_and_closures_travel_by_value(self, member: Member) -> None:
        offset = 5
        assert member.run(lambda x: x + offset, 1) == 6
        assert member.run(lambda: lambda y: y * 2)(21) == 42

    def test_async_bodies_run_to_their_end(self, member: Member) -> None:
        _, (step,) = member.claim((bodies.told_later,))
        assert member.open(member.results(1)[0]) == step

    def test_a_body_knows_its_attempt(self, member: Member) -> None:
        epoch, (step,) = member.claim((bodies.told,), attempt=2)
        first = member.open(member.results(1)[0])
        again, _ = member.claim((bodies.told,), attempt=3, steps=[step])
        second = member.open(member.results(1)[0])
        assert first[:3] == (step, 2, epoch)
        assert second[:3] == (step, 3, again)
        assert first[3] == second[3]
        other = member.run(bodies.told)
        assert other[3] != first[3]

    def test_as_many_bodies_run_at_once_as_the_spec_says(self, forge: Forge, member: Member) -> None:
        gates = [member.gate() for _ in range(forge.executor.slots(forge.size))]
        member.claim(*[(bodies.gate, gate.path) for gate in gates])
        for gate in gates:
            gate.await_body()
        for gate in gates:
            gate.open()
        assert [member.open(row) for row in member.results(len(gates))] == ["open"] * len(gates)

    def test_a_large_result_lies_in_a_side_file(self, member: Member) -> None:
        epoch, (step,) = member.claim((bodies.grow, 1 << 20))
        (row,) = member.results(1)
        assert row.payload[:1] == FILE
        assert len(row.payload) < 100
        assert member.open(row) == bodies.grow(1 << 20)
        names = [name for _, _, files in os.walk(f"{member.folder}/F.db.blobs") for name in files]
        assert len(names) == 1
        assert names[0].startswith(f"s{step}-e{epoch}-")

    def test_buffers_travel_beside_the_pickle(self, member: Member) -> None:
        value = member.run(bodies.aside, 1 << 19)
        assert bytes(value) == b"x" * (1 << 19)
        assert bytes(member.run(bodies.aside, 100)) == b"x" * 100

    def test_large_arguments_come_out_of_a_side_file(self, member: Member) -> None:
        value = b"y" * (1 << 19)
        assert member.run(bodies.give, value) == value
        buffer = pickle.PickleBuffer(bytearray(1 << 19))
        assert bytes(member.run(bodies.give, buffer)) == bytes(1 << 19)

    def test_short_results_do_not_wait_for_a_long_body(self, member: Member) -> None:
        gate = member.gate()
        _, (short, long) = member.claim((bodies.give, 1), (bodies.gate, gate.path))
        gate.await_body()
        (row,) = member.results(1)
        assert (row.step, row.status) == (short, COMPLETED)
        gate.open()
        assert member.results(1)[0].step == long

    def test_a_body_may_use_processes_of_its_own(self, member: Member) -> None:
        assert member.run(bodies.fork_and_wait) == 42
