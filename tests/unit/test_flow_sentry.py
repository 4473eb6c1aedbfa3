"""The sentry: it tells of a workflow that holds up its host, once for each place, and of no other."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

import dq
from dq.executor import current
from dq.executor.frames import Assign, Notice
from dq.flow import context, decorators, host
from dq.flow.host import Host
from dq.flow.player import Player
from dq.flow.sentry import Sentry
from tests.waiting import wait_until


class Post:
    """A host whose main thread is where the test wants it, with a clock that the test sets."""

    def __init__(self) -> None:
        self.time = 0.0
        self.ids = SimpleNamespace(given=1)
        self.release = threading.Event()
        self.inside = threading.Event()
        self.done: list[int] = []
        told = Assign(7, "movie-1", 1, b"", 0)
        self.run = Player(told, {}, [], lambda: lambda: None)._run
        self.sentry: Sentry

    def station(self, code: Callable[[], None]) -> None:
        """Has the host's main thread run that until the end of the test."""
        self.thread = threading.Thread(target=code)
        self.thread.start()
        assert self.inside.wait(20)
        stand_in: Any = SimpleNamespace(thread=self.thread.ident, ids=self.ids)
        self.sentry = Sentry(cast(Host, stand_in), lambda: self.time)

    def looks(self, *times: float) -> list[Notice | None]:
        found: list[Notice | None] = []
        for self.time in times:
            found.append(self.sentry.look())
        return found

    def hold(self) -> None:
        self.inside.set()
        self.release.wait(60)


@pytest.fixture
def post() -> Iterator[Post]:
    post = Post()
    context.running = post.run
    yield post
    context.running = None
    post.release.set()
    post.done.append(1)
    post.thread.join(20)


def test_what_holds_up_the_host_is_told_once(post: Post) -> None:
    post.station(post.hold)
    first, second, third, fourth = post.looks(0, 0.6, 1.2, 1.8)
    assert (first, second, fourth) == (None, None, None)
    assert third is not None
    assert "run 'movie-1' has held up its host for 1.2 s" in third.text
    line = Post.hold.__code__.co_firstlineno + 2
    assert f"test_flow_sentry.py:{line}," in third.text  # and not the line of the standard library that waits
    post.run.journal.now += 1
    assert post.looks(2.0, 3.2, 9.0) == [None, None, None]  # the same place


@pytest.mark.parametrize("gets_on", ["hears", "asks", "replays", "rests", "is another"])
def test_a_run_that_gets_on_is_left_alone(post: Post, gets_on: str) -> None:
    post.station(post.hold)
    assert post.looks(0, 0.9) == [None, None]
    if gets_on == "hears":
        post.run.journal.now += 1
    elif gets_on == "asks":
        post.ids.given += 1
    elif gets_on == "replays":
        from dq.flow.journal import Recorded

        post.run.journal.load("0", "m:f", 0, Recorded(1, b"", b"", 1, 0, b"", 1))
    elif gets_on == "rests":
        context.running = None
    else:
        context.running = Player(Assign(8, "movie-2", 1, b"", 0), {}, [], lambda: lambda: None)._run
    assert post.looks(1.5) == [None]
    context.running = post.run
    assert post.looks(1.6) == [None]


def test_what_dq_itself_waits_for_is_not_the_workflow_s(post: Post) -> None:
    def spin() -> None:
        post.inside.set()
        exec(code, {"done": post.done})

    code = compile("while not done: pass", host.__file__, "exec")
    post.station(spin)
    wait_until(lambda: sys._current_frames()[post.thread.ident or 0].f_code is code)
    assert post.looks(0, 2, 4) == [None, None, None]


def test_the_import_of_user_code_is_no_workflow(post: Post) -> None:
    post.station(post.hold)
    with current.importing():
        assert post.looks(0, 2, 4) == [None, None, None]


def test_an_idle_host_is_left_alone(post: Post) -> None:
    post.station(post.hold)
    context.running = None
    assert post.looks(0, 2, 4) == [None, None, None]


def test_a_step_in_the_body_of_a_step_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decorators, "_warned", False)
    assert outer() == 2  # no body of a step runs here
    current.running.set(cast(Any, object()))
    with pytest.warns(RuntimeWarning, match="step inner is called in the body of another step"):
        assert outer() == 2
    assert outer() == 2


@dq.step
def inner() -> int:
    return 1


def outer() -> int:
    return inner() + 1
