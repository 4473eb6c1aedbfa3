"""The part of the suite in which bodies fail, and their worker lives on."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from dq.errors import DamagedPayload, DqError, NotImportable, NotPicklable, StepError
from dq.executor.frames import Claim, Define
from dq.model.states import FAILED
from dq.testing import bodies
from dq.testing.bound import Bound
from dq.testing.rig import Member


class Failing(Bound):
    """A failed body is an outcome like any other."""

    @pytest.fixture
    def alive(self, member: Member) -> Generator[None]:
        """Checks at the end of a test that the worker which failed a step goes on with the next."""
        pid = member.pid
        yield
        assert member.run(bodies.pid) == pid

    def test_an_exception_keeps_its_type_and_its_traceback(self, member: Member, alive: None) -> None:
        with pytest.raises(KeyError, match="key") as caught:
            member.run(bodies.fail, "key")
        told = str(caught.value.__cause__)
        assert "in fail" in told
        assert "KeyError: 'key'" in told
        assert "envelope" not in told

    @pytest.mark.parametrize(
        ("body", "type_name", "text"),
        [
            (bodies.fail_lopsided, "dq.testing.bodies.Lopsided", "salt and pepper"),
            (bodies.fail_holding, "dq.testing.bodies.Holder", "mine"),
            (bodies.interrupt, "KeyboardInterrupt", ""),
        ],
    )
    def test_what_can_not_travel_is_told(
        self, member: Member, alive: None, body: Any, type_name: str, text: str
    ) -> None:
        with pytest.raises(StepError) as caught:
            member.run(body)
        error = caught.value
        assert (error.type_name, error.text) == (type_name, text)
        assert f"in {body.__name__}" in error.traceback

    def test_a_result_that_can_not_be_pickled_is_named(self, member: Member, alive: None) -> None:
        with pytest.raises(NotPicklable, match=r"result\['rows'\]\[1\]: cannot pickle '_thread.lock' object"):
            member.run(bodies.lock)

    def test_a_result_too_deep_to_be_pickled(self, member: Member, alive: None) -> None:
        with pytest.raises(NotPicklable, match="nested too deeply"):
            member.run(bodies.nest, 100_000)

    def test_a_body_that_recurses_for_ever(self, member: Member, alive: None) -> None:
        with pytest.raises(RecursionError):
            member.run(bodies.recurse)

    def test_ctrl_c_is_not_for_workers(self, member: Member, alive: None) -> None:
        assert member.run(bodies.interrupt_group) == "still here"

    @pytest.mark.parametrize("name", ["dq_no_such_module:f", "dq.testing.bodies:no_such_function"])
    def test_a_function_that_is_not_there(self, member: Member, alive: None, name: str) -> None:
        member.link.send(Define(900, name, "step", bytes(16), b"", "", 3))
        member.link.send(Claim(1, [(7, 1, 900, member.codec.dumps(((), {}), ""))]))
        with pytest.raises(NotImportable, match=name.partition(":")[0]):
            member.open(member.results(1)[0])

    def test_a_function_that_was_never_defined(self, member: Member, alive: None) -> None:
        member.link.send(Claim(1, [(7, 1, 901, member.codec.dumps(((), {}), ""))]))
        with pytest.raises(NotImportable, match="901"):
            member.open(member.results(1)[0])

    def test_arguments_that_are_damaged(self, member: Member, alive: None) -> None:
        payload = bytearray(member.codec.dumps(((1,), {}), ""))
        payload[-2] ^= 1
        member.link.send(Claim(1, [(7, 1, member.number(bodies.give), bytes(payload))]))
        with pytest.raises(DamagedPayload):
            member.open(member.results(1)[0])

    def test_failures_and_results_mix(self, member: Member, alive: None) -> None:
        _, steps = member.claim(*[(bodies.fail, "no") if n % 3 else (bodies.give, n) for n in range(90)])
        failed = {row.step for row in member.results(90) if row.status == FAILED}
        assert failed == {step for n, step in enumerate(steps) if n % 3}

    def test_a_body_that_comes_back_twice(self, member: Member, alive: None) -> None:
        assert member.run(bodies.fork) == "original"

    def test_every_error_is_one_of_dq(self) -> None:
        assert all(issubclass(kind, DqError) for kind in (NotImportable, NotPicklable, StepError, DamagedPayload))
