"""Functions travel by name where they can be found by it, and by value where not."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dq.errors import NotImportable, NotPicklable
from dq.executor import current, functions, script
from dq.executor.functions import Description, define, describe, digest, resolve

ROOT = Path(__file__).resolve().parents[2]


class Decorated:
    """What a decorator leaves in the module."""

    def __init__(self, body: Callable[..., Any]) -> None:
        self.__dq_body__ = body


def plain(x: int) -> int:
    return x + 1


@Decorated
def wrapped(x: int) -> int:
    return x + 2


@functools.wraps(plain)
def impostor(x: int) -> int:
    return x + 3


class Space:
    @staticmethod
    def static(x: int) -> int:
        return x + 4

    def method(self, x: int) -> int:
        return x + 5


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (plain, f"{__name__}:plain"),
        (wrapped, f"{__name__}:wrapped"),
        (wrapped.__dq_body__, f"{__name__}:wrapped"),
        (Space.static, f"{__name__}:Space.static"),
        (Space.method, f"{__name__}:Space.method"),
        (Space, f"{__name__}:Space"),
        (math.factorial, "math:factorial"),
        (len, "builtins:len"),
    ],
)
def test_what_can_be_found_travels_by_name(function: Any, name: str) -> None:
    assert describe(function) == Description(name, b"")
    assert resolve(name, b"") is functions.body_of(function)


def test_the_rest_travels_by_value() -> None:
    offset = 10

    def inner(x: int) -> int:
        return x + offset

    for function, name, result in [
        (inner, "inner at test_functions.py:", 11),
        (lambda x: x * 7, "<lambda> at test_functions.py:", 7),
        (functools.partial(plain), "partial object", 2),
        (Space().method, "method at test_functions.py:", 6),
        (impostor, "plain at test_functions.py:", 4),
        ([4, 5].__getitem__, "__getitem__", 5),
    ]:
        described = describe(function)
        assert described.name.startswith(name)
        assert described.code
        assert resolve(*described)(1) == result


def test_what_can_not_travel_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(NotPicklable, match=r"<lambda> at test_functions.py:\d+ \(closes over lock\): cannot pickle"):
        describe(lambda: lock)
    with pytest.raises(NotPicklable, match="not callable"):
        describe(5)


def test_main_counts_only_with_a_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "flows.py"
    path.write_text("def body():\n    return 1\n")
    main = types.ModuleType("__main__")
    main.__file__ = str(path)
    exec(path.read_text(), main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert describe(main.body) == Description("__main__:body", b"")
    assert functions.main_script() == str(path)
    del main.__file__
    assert describe(main.body).code
    assert functions.main_script() == ""


def test_a_script_loaded_in_a_template_has_the_same_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "flows.py"
    path.write_text("def body():\n    return 1\n\nif __name__ == '__main__':\n    raise RuntimeError\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("__main__", script.NAME):
        monkeypatch.setitem(sys.modules, name, sys.modules["__main__"])
    module = script.load(str(path))
    assert describe(module.body) == Description("__main__:body", b"")
    assert resolve("__main__:body", b"") is module.body


def test_a_running_script_finds_what_its_workers_pickled(tmp_path: Path) -> None:
    program = tmp_path / "flows.py"
    program.write_text(
        "import pickle\nfrom dq.executor import functions\nclass Own: pass\n"
        "data = pickle.dumps(Own()).replace(b'__main__', b'__dq_main__').replace(b'\\x8c\\x08', b'\\x8c\\x0b')\n"
        "data = data[:3] + (len(data) - 11).to_bytes(8, 'little') + data[11:]\n"
        "assert type(pickle.loads(data)) is Own\n"
    )
    environment = {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(program)], check=True, timeout=60, env=environment)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dq_nowhere:f", "dq_nowhere of dq_nowhere:f can't be imported here: ModuleNotFoundError"),
        (f"{__name__}:gone", "has no gone; it was renamed"),
        (f"{__name__}:Space.gone", "has no Space.gone"),
        (f"{__name__}:ROOT", "not a function"),
    ],
)
def test_what_is_not_there_says_so(name: str, text: str) -> None:
    with pytest.raises(NotImportable) as caught:
        resolve(name, b"")
    assert text in str(caught.value)


@pytest.mark.parametrize("text", ["1 / 0", "import sys; sys.exit(2)", "this is no python"])
def test_a_module_that_fails_says_so(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dq_broken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NotImportable, match="dq_broken"):
        resolve("dq_broken:f", b"")


def test_code_that_does_not_load_says_so() -> None:
    with pytest.raises(NotImportable, match="by value and does not load here"):
        resolve("<lambda> at x.py:1", b"garbage")


def test_an_engine_could_tell_that_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dq_looks.py").write_text(
        "from dq.executor import current\nseen = current.IN_TEMPLATE\ndef f(): return current.IN_TEMPLATE\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    body = resolve("dq_looks:f", b"")
    assert sys.modules.pop("dq_looks").seen is True
    assert body() is False
    assert current.IN_TEMPLATE is False


def test_the_digest_tells_all_its_fields_apart() -> None:
    base = ("m:f", b"code", "step", "cpu", 3)
    marks = {digest(*base)}
    for index, other in enumerate(["m:g", b"c", "workflow", "", 4]):
        fields: list[Any] = list(base)
        fields[index] = other
        marks.add(digest(*fields))
    marks.add(digest("m:fc", b"ode", "step", "cpu", 3))
    assert len(marks) == 7
    assert digest(*base) == digest(*base, "ignored.py")
    assert digest("__main__:f", b"", "step", "", 3, "a.py") != digest("__main__:f", b"", "step", "", 3, "b.py")
    assert len(digest(*base)) == 16


def test_a_definition_holds_it_all() -> None:
    found = define(9, plain, kind="step", executor="cpu", max_crashes=5)
    assert (found.number, found.name, found.code, found.kind) == (9, f"{__name__}:plain", b"", "step")
    assert found.digest == digest(found.name, b"", "step", "cpu", 5)
