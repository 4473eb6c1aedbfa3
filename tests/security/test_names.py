"""Names that no name can be are refused where they are given, and nobody else notices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dq
from tests.security import unsafeflows

BAD: dict[str, tuple[Any, str]] = {
    "nul": ("a\0b", "control character"),
    "escape": ("a\x1b[31mb", "control character"),
    "newline": ("a\nb", "control character"),
    "second-kind": ("a\x9b31mb", "control character"),
    "surrogate": ("\ud800", "half of a surrogate pair"),
    "long": ("x" * 10_000_000, "this one has 10000000"),
    "empty": ("", "has from 1 to 512 characters"),
    "number": (7, "is text, not int"),
}


@dq.workflow
def says(what: str, name: Any) -> Any:
    match what:
        case "publish":
            dq.publish(name, 1)
        case "wait":
            return dq.wait_signal(name, timeout=0.001)
        case "patched":
            return dq.patched(name)
        case _:
            dq.signal(name, "go")
    return None


@dq.step
def signals(run: Any, name: Any) -> None:
    dq.signal(run, name)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dq.Engine]:
    with dq.Engine(tmp_path_factory.mktemp("names") / "F.db", workers=1) as engine:
        engine.start(unsafeflows.waits, id="waits")
        yield engine
        assert engine.submit(abs, -3).result(30) == 3, "the engine still works"
        engine.cancel("waits", now=True)


@pytest.mark.parametrize("kind", BAD)
def test_names_from_outside(engine: dq.Engine, kind: str) -> None:
    name, rule = BAD[kind]
    run = engine.get("waits")
    asks: list[Callable[[], Any]] = [lambda: engine.signal("waits", name), lambda: run.published(name)]
    if kind not in {"empty", "number"}:
        asks += [
            lambda: engine.fork("waits", name),
            lambda: dq.step(name=name)(len),
            lambda: dq.workflow(name=name)(len),
        ]
    for ask in asks:
        with pytest.raises(dq.BadName, match=rule) as error:
            ask()
        assert len(str(error.value)) < 400, "the message does not drown in the name"
        assert str(error.value).isprintable()


@pytest.mark.parametrize("kind", ["escape", "surrogate", "long", "number"])
def test_names_in_a_workflow_and_in_a_step(engine: dq.Engine, kind: str) -> None:
    name, rule = BAD[kind]
    for what in ("publish", "wait", "patched"):
        with pytest.raises(dq.BadName, match=rule):
            engine.start(says, what, name).result(30)
    for error in (
        engine.submit(signals, name, "go").exception(30),
        engine.submit(signals, "waits", name).exception(30),
    ):
        assert isinstance(error, dq.BadName if kind != "number" else TypeError)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b", "..", "~", "%2e%2e%2f", "con.", "-rf"])
def test_a_name_is_never_a_path(engine: dq.Engine, name: str) -> None:
    folder = Path(engine.path).parent
    assert engine.submit(dq.step(name=name)(len), [1]).result(30) == 1
    assert engine.submit(dq.step(name=name)(bytes), 300_000).result(30) == bytes(300_000)
    engine.signal("waits", name, bytes(300_000))
    assert engine.start(says, "publish", name, id=f"{name}-").result(30) is None
    assert all(path.name.startswith("F.db") for path in folder.iterdir())
    for path in (folder / "F.db.blobs").rglob("*"):
        assert path.name.replace("-", "").replace(".tmp", "").isalnum()


def test_a_function_with_a_name_that_no_name_can_be(engine: dq.Engine) -> None:
    def odd() -> int:
        return 5

    odd.__name__ = odd.__qualname__ = "\x1b[31m\ud800" + "x" * 100_000
    assert engine.submit(odd).result(30) == 5
    assert os.path.exists(engine.path)
