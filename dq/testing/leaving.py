"""The part of the suite in which work is taken back, and members are sent home."""

from __future__ import annotations

import os
import signal

import pytest

from dq.executor.berth import GARBLED, LEFT, ORPHANED
from dq.executor.frames import Claim, Deliver, Flush, Message, Revoke, Stop
from dq.executor.slots import BEGUN
from dq.testing import bodies
from dq.testing.bound import Bound
from dq.testing.rig import Forge, Gate, Member, wait_until


class Leaving(Bound):
    """What has begun ends; what has not is given back and does not begin."""

    @pytest.fixture
    def gates(self, forge: Forge, member: Member) -> list[Gate]:
        """A gate for each body that can run at once: while all are shut, nothing else begins."""
        return [member.gate() for _ in range(forge.executor.slots(forge.size))]

    def _block(self, member: Member, gates: list[Gate], *more: tuple[object, ...]) -> tuple[int, list[int], list[int]]:
        epoch, steps = member.claim(*[(bodies.gate, gate.path) for gate in gates], *more)
        for gate in gates:
            gate.await_body()
        return epoch, steps[: len(gates)], steps[len(gates) :]

    def test_what_has_not_begun_is_given_back(self, member: Member, gates: list[Gate]) -> None:
        log = f"{member.folder}/log"
        epoch, begun, waiting = self._block(member, gates, *[(bodies.touch, log)] * 5)
        assert sorted(member.revoke()) == sorted((epoch, step) for step in waiting)
        for gate in gates:
            gate.open()
        assert sorted(row.step for row in member.results(len(gates))) == sorted(begun)
        assert member.run(bodies.give, "next") == "next"
        assert not os.path.exists(log)

    def test_what_was_given_back_may_come_again(self, member: Member, gates: list[Gate]) -> None:
        log = f"{member.folder}/log"
        _, _, waiting = self._block(member, gates, (bodies.touch, log), (bodies.touch, log))
        assert len(member.revoke()) == 2
        epoch, _ = member.claim((bodies.touch, log), (bodies.touch, log), attempt=1, steps=waiting)
        for gate in gates:
            gate.open()
        rows = [row for row in member.results(len(gates) + 2) if row.step in waiting]
        assert [row.epoch for row in rows] == [epoch] * 2
        with open(log, encoding="utf-8") as file:
            assert sorted(int(line) for line in file) == waiting

    def test_claims_that_nobody_has_read_yet_are_given_back(self, member: Member, gates: list[Gate]) -> None:
        self._block(member, gates)
        epoch, waiting = member.claim((bodies.nothing,), (bodies.nothing,))
        assert sorted(member.revoke()) == [(epoch, step) for step in waiting]
        for gate in gates:
            gate.open()
        member.results(len(gates))

    def test_an_idle_member_has_nothing_to_give_back(self, member: Member) -> None:
        assert member.revoke() == []
        member.run(bodies.nothing)
        assert member.revoke() == []

    def test_stop_finishes_what_is_begun(self, member: Member, gates: list[Gate]) -> None:
        epoch, begun, waiting = self._block(member, gates, (bodies.nothing,), (bodies.nothing,))
        member.stop()
        assert sorted(member.gave_back()) == sorted((epoch, step) for step in waiting)
        for gate in gates:
            gate.open()
        assert sorted(row.step for row in member.results(len(gates))) == sorted(begun)
        assert member.nothing_more()
        assert member.wait() == LEFT
        assert member.entries() == []

    def test_stop_ends_an_idle_member(self, member: Member) -> None:
        member.stop()
        assert member.gave_back() == []
        assert member.wait() == LEFT

    def test_stop_may_come_with_the_work(self, member: Member) -> None:
        member.run(bodies.nothing)
        member.link.send(Stop())
        assert member.nothing_more()
        assert member.wait() == LEFT

    def test_a_member_without_a_supervisor_ends(self, member: Member) -> None:
        member.hang_up()
        assert member.wait() == ORPHANED

    def test_even_in_the_middle_of_a_body(self, member: Member, gates: list[Gate]) -> None:
        self._block(member, gates)
        member.hang_up()
        assert member.wait() == ORPHANED
        for gate in gates:
            gate.close()

    @pytest.mark.parametrize("frame", [b"\xff\xff\xff\xff", b"\x03\x00\x00\x00abc", b"\x00\x00\x00\x00"])
    def test_garbage_ends_only_its_member(self, forge: Forge, member: Member, folder: str, frame: bytes) -> None:
        with forge.member(folder, slot=1) as other:
            member.link.send_bytes(frame)
            assert member.wait() == GARBLED
            assert other.run(bodies.give, 1) == 1

    @pytest.mark.parametrize("message", [Flush(1), Deliver([]), Revoke()])
    def test_so_does_what_is_not_for_workers(self, member: Member, message: Message) -> None:
        member.link.send(message)
        assert member.wait() == GARBLED

    def test_and_garbage_on_the_control_socket(self, member: Member) -> None:
        member.control.send(Claim(1, []))
        assert member.wait() == GARBLED

    def test_the_slot_tells_what_a_killed_member_had_begun(self, member: Member, gates: list[Gate]) -> None:
        epoch, begun, _ = self._block(member, gates, (bodies.nothing,))
        member.kill()
        assert member.wait() == -signal.SIGKILL
        assert sorted(member.entries()) == sorted((step, epoch, BEGUN) for step in begun)
        for gate in gates:
            gate.close()

    def test_the_stack_of_a_body_can_be_had(self, member: Member, gates: list[Gate]) -> None:
        self._block(member, gates)
        os.kill(member.pid, signal.SIGUSR1)
        wait_until(lambda: "in gate" in member.stack(), "the stack of the body")
        for gate in gates:
            gate.open()
        member.results(len(gates))
