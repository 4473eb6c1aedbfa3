"""A member that can't start says why before it leaves."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import ClassVar

import pytest

from dq.executor.berth import UNFIT
from dq.executor.contract import Desk, Executor, Job
from dq.executor.frames import Unfit
from dq.executor.link import Closed, Link
from dq.executor.slots import open_slots
from dq.testing.rig import BOOT, PATIENCE, Forge


class Stillborn(Executor):
    """Can be made and can't be started."""

    serial: ClassVar[bool] = True

    def start(self, desk: Desk) -> None:
        raise ConnectionError("no scheduler at tcp://nowhere")

    def submit(self, job: Job) -> None:
        raise NotImplementedError

    def shutdown(self, drain: float | None) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("nothing:1", "there is no executor 'nothing'"),
        ("process:0", "whole number"),
        ("thread:4000", "bodies at once"),
        (f"{__name__}:Stillborn:1", "no scheduler at tcp://nowhere"),
    ],
)
def test_unfit(spec: str, text: str, tmp_path: Path) -> None:
    slots = str(tmp_path / "F.db.slots")
    open_slots(slots, create=True)
    order = {"executor": spec, "slot": 0, "nonce": "00" * 16, "boot_epoch": BOOT, "slots_path": slots, "blobs": "none"}
    ours, work = socket.socketpair()
    far, control = socket.socketpair()
    with Forge("process:1") as forge, ours, far:
        with work, control:
            pid = forge.fork(order, [work.fileno(), control.fileno()])
        ours.settimeout(PATIENCE)
        link = Link(ours)
        (message,) = link.receive()
        assert isinstance(message, Unfit)
        assert text in message.text
        with pytest.raises(Closed):
            link.receive()
        assert forge.wait(pid) == UNFIT
