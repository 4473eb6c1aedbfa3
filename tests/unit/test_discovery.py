"""Executors are found by name, and what is wrong with one is told."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest

from dq.errors import BadExecutor
from dq.executor import discovery
from dq.executor.contract import Capability, Desk, Executor, Job
from dq.executor.discovery import SLOTS_MAX, Spec, available, load, make, parse


class Mine(Executor):
    """An executor of a third party."""

    capabilities: ClassVar[Capability] = Capability.REMOTE | Capability.ASYNC

    def __init__(self, size: int, argument: str = "") -> None:
        if argument == "bad":
            raise ConnectionError("nobody answers at bad")
        super().__init__(size, argument)

    def start(self, desk: Desk) -> None:
        raise NotImplementedError

    def submit(self, job: Job) -> None:
        raise NotImplementedError

    def shutdown(self, drain: float | None) -> None:
        raise NotImplementedError


NAME = f"{__name__}:Mine"


@pytest.fixture(autouse=True)
def _forget() -> None:
    load.cache_clear()


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("process:4", ("process", 4, "")),
        ("process", ("process", len(os.sched_getaffinity(0)), "")),
        ("dask:8:tcp://host:8786", ("dask", 8, "tcp://host:8786")),
        ("mine.pool:Pool", ("mine.pool:Pool", len(os.sched_getaffinity(0)), "")),
        ("mine.pool:Pool:3:x:y", ("mine.pool:Pool", 3, "x:y")),
        ("my-own:2", ("my-own", 2, "")),
    ],
)
def test_specs(spec: str, found: tuple[str, int, str]) -> None:
    assert parse(spec) == Spec(*found)


@pytest.mark.parametrize("spec", ["", ":", "process:", "process:0", "process:-1", "process:x-y", "process:²", "a b:1"])
def test_specs_that_say_nothing(spec: str) -> None:
    with pytest.raises(BadExecutor, match=r"write NAME:SIZE|whole number"):
        parse(spec)


@pytest.mark.parametrize("name", ["process", "thread"])
def test_the_executors_of_dq_are_installed(name: str) -> None:
    assert load(name).__module__ == f"dq_executors.{name}"


def test_a_class_can_be_named() -> None:
    assert load(NAME).__qualname__ == "Mine"
    executor = make(f"{NAME}:5:here")
    assert (executor.size, executor.argument) == (5, "here")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dask", "pip install 'dq-durable[dask]'"),
        ("nothing", "installed: "),
        ("dq_nowhere:Pool", "needs the module dq_nowhere"),
        (f"{__name__}:Missing", "AttributeError"),
        (f"{__name__}:NAME", "no subclass"),
    ],
)
def test_what_is_not_there_says_what_helps(name: str, text: str) -> None:
    with pytest.raises(BadExecutor) as caught:
        load(name)
    assert text in str(caught.value)


def test_an_executor_that_refuses_its_argument_says_why() -> None:
    with pytest.raises(BadExecutor, match="nobody answers at bad"):
        make(f"{NAME}:1:bad")


def test_a_member_has_room_for_so_many_bodies_only() -> None:
    assert make(f"{NAME}:{SLOTS_MAX}").size == SLOTS_MAX
    with pytest.raises(BadExecutor, match=f"{SLOTS_MAX} is the most"):
        make(f"{NAME}:{SLOTS_MAX + 1}")


def test_broken_ones_are_listed_with_their_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dq_raises.py").write_text("raise RuntimeError('on purpose')\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("mine", NAME, discovery.GROUP),
        EntryPoint("broken", "dq_raises:Pool", discovery.GROUP),
        EntryPoint("absent", "dq_absent:Pool", discovery.GROUP),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == discovery.GROUP else [])
    absent, broken, mine = available()
    assert (mine.name, mine.target, mine.error) == ("mine", NAME, "")
    assert set(mine.capabilities) == {"remote", "async"}
    assert "dq_absent, which is not installed" in absent.error
    assert "RuntimeError: on purpose" in broken.error
    sys.modules.pop("dq_raises", None)
