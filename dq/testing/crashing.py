"""The part of the suite in which user code does its worst: four deeds at each of five moments."""

from __future__ import annotations

import signal

import pytest

from dq.executor.contract import Capability
from dq.executor.slots import BEGUN
from dq.model.states import COMPLETED, FAILED
from dq.testing import bodies
from dq.testing.bound import Bound
from dq.testing.rig import Forge, Member

_ENDS = {"os._exit": 3, "segfault": -signal.SIGSEGV}  # deed -> exit code


class Crashing(Bound):
    """A deed that can be caught is a failure; one that can't leaves evidence, and takes nobody else along."""

    @pytest.mark.parametrize("deed", ["sys.exit", "exception", "os._exit", "segfault"])
    @pytest.mark.parametrize("moment", ["unpickle", "run", "pickle", "return", "collect"])
    def test_deeds(self, forge: Forge, member: Member, folder: str, moment: str, deed: str) -> None:
        calls = {
            "unpickle": (bodies.give, bodies.Trap("never", deed)),
            "run": (bodies.do, deed),
            "pickle": (bodies.trap, "pickle", deed),
            "return": (bodies.trap, "never", deed),
            "collect": (bodies.litter, deed),
        }
        if moment == "return" or (moment == "collect" and deed not in _ENDS):
            # A worker never opens a result; whoever does has the trap then. What is raised while garbage is collected
            # reaches nobody: the interpreter writes it to stderr and goes on.
            member.claim(calls[moment])
            assert member.results(1)[0].status == COMPLETED
        elif deed not in _ENDS:
            member.claim(calls[moment])
            assert member.results(1)[0].status == FAILED
        else:
            self._crash(forge, member, folder, calls[moment], deed)
            return
        assert member.run(bodies.pid) == member.pid

    def _crash(self, forge: Forge, member: Member, folder: str, call: tuple[object, ...], deed: str) -> None:
        if Capability.KILL not in forge.executor.capabilities:
            pytest.skip("bodies of this executor share a process, and so its death")
        epoch, (step, _) = member.claim(call, (bodies.nothing,))
        assert member.wait() == _ENDS[deed]
        assert member.entries() == [(step, epoch, BEGUN)]
        assert member.nothing_more()
        if deed == "segfault":
            assert "Segmentation fault" in member.stack()
        with forge.member(folder, slot=1) as other:
            assert other.run(bodies.give, "next") == "next"
