"""The codec: values and exceptions go in, and the same come out or a clear error."""

from __future__ import annotations

import array
import os
import pickle
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from dq.errors import DamagedPayload, DiskFull, NotPicklable, StepError
from dq.executor import blobs, failures
from dq.executor.codec import Codec, pack
from dq.executor.failures import RemoteTraceback
from dq.model.payload import FAILURE, FILE, INLINE_MAX, PICKLE, seal

ROOT = Path(__file__).resolve().parents[2]


class Thing:
    """A plain object with attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slotted:
    """An object without a `__dict__`."""

    __slots__ = ("empty", "held")

    def __init__(self, held: object) -> None:
        self.held = held


class Rude:
    """Raises what it likes while it is pickled."""

    def __reduce__(self) -> NoReturn:
        raise ZeroDivisionError("no thanks")


class Silent(Exception):
    """An exception that can't even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unlike(Exception):
    """Loads as something else."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ValueError, ("other",)


class Passing(Exception):
    """Will be gone by the time it is loaded."""


def raised(error: BaseException) -> BaseException:
    """The exception with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.fixture
def codec(tmp_path: Path) -> Codec:
    return Codec(str(tmp_path / "F.db.blobs"))


VALUES: list[Any] = [None, 0, "text", b"bytes", [1, {"a": (2.5, None)}], {1, 2}, Thing, os.path.join, ..., True]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_small_values_travel_inline(codec: Codec, value: Any) -> None:
    payload = codec.dumps(value, "s1-e1")
    assert payload[:1] == PICKLE
    assert codec.loads(payload) == value
    assert not os.path.exists(codec.folder or "")


def test_what_pickle_can_not_do_cloudpickle_does(codec: Codec) -> None:
    base = 3
    function: Callable[[int], int] = codec.loads(codec.dumps(lambda x: x + base, "s1-e1"))
    assert function(4) == 7


def test_arrays_come_back_writable_from_either_place(codec: Codec) -> None:
    for size in (10, 100_000):
        array_in = np.arange(size)
        array_out = codec.loads(codec.dumps(array_in, "s1-e1"))
        assert (array_out == array_in).all()
        array_out[0] = 7
        assert array_in[0] == 0


@pytest.mark.parametrize(
    "value",
    [
        "x" * INLINE_MAX,
        bytearray(INLINE_MAX),
        [np.ones((300, 300)), "between", np.zeros(0), np.arange(50_000)],
        np.asfortranarray(np.ones((300, 400))),
        np.ones((600, 600))[::2, ::2],
        array.array("d", range(60_000)),
    ],
    ids=["str", "bytearray", "arrays", "fortran", "strided", "array"],
)
def test_large_values_go_into_a_side_file(codec: Codec, value: Any) -> None:
    payload = codec.dumps(value, "s1-e1")
    assert payload[:1] == FILE
    found = codec.loads(payload)
    assert pickle.dumps(found) == pickle.dumps(value)


def test_a_read_only_buffer_stays_read_only(codec: Codec) -> None:
    array_in = np.arange(100_000)
    array_in.flags.writeable = False
    assert not codec.loads(codec.dumps(array_in, "s1-e1")).flags.writeable


def test_the_border_is_at_256_kib(codec: Codec) -> None:
    room = INLINE_MAX - len(pickle.dumps(b"x" * 70_000, 5)) + 70_000
    assert codec.dumps(b"x" * room, "s1-e1")[:1] == PICKLE
    assert codec.dumps(b"x" * (room + 1), "s1-e1")[:1] == FILE


def test_without_a_folder_everything_travels_inline() -> None:
    codec = Codec()
    payload = codec.dumps(np.arange(100_000), "s1-e1")
    assert payload[:1] == PICKLE
    assert codec.loads(payload).sum() == sum(range(100_000))
    with pytest.raises(DamagedPayload, match="folder"):
        codec.loads(seal(FILE, b""))


def test_side_files_are_private_and_named_after_their_step(codec: Codec) -> None:
    first, second = (codec.dumps(bytes(INLINE_MAX), "s12-e34") for _ in range(2))
    names = [blobs.reference(payload[5:]).name for payload in (first, second)]
    assert names[0] != names[1]
    assert all(name.startswith("s12-e34-") for name in names)
    for name in names:
        path = Path(blobs.path_of(str(codec.folder), name))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(str(codec.folder)).stat().st_mode) == 0o700


def test_a_damaged_or_missing_side_file_is_named(codec: Codec) -> None:
    payload = codec.dumps(bytes(INLINE_MAX), "s1-e1")
    path = Path(blobs.path_of(str(codec.folder), blobs.reference(payload[5:]).name))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedPayload, match="checksum"):
        codec.loads(payload)
    path.write_bytes(content[:-1])
    with pytest.raises(DamagedPayload, match=path.name):
        codec.loads(payload)
    path.unlink()
    with pytest.raises(DamagedPayload, match="can't be opened"):
        codec.loads(payload)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x93\xa1x\x01\x02\x03", b"\x93\xa9../etc/pw\x01\x02"])
def test_a_payload_can_not_name_any_file(codec: Codec, body: bytes) -> None:
    with pytest.raises(DamagedPayload):
        codec.loads(seal(FILE, body))


def test_a_full_disk_leaves_nothing_behind(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(DiskFull, match="no room"):
            codec.dumps(bytes(INLINE_MAX), "s1-e1")
    assert not [path for path in Path(str(codec.folder)).rglob("*") if path.is_file()]


def test_a_failure_is_no_value_and_a_value_no_failure(codec: Codec) -> None:
    with pytest.raises(DamagedPayload):
        codec.loads(codec.failure(ValueError()))
    with pytest.raises(DamagedPayload):
        codec.restore(codec.dumps(1, "s1-e1"))


def culprits() -> list[tuple[Any, str, str]]:
    lock = threading.Lock()
    thing = Thing(rows=[1, 2, Thing(held=lock)])
    return [
        (lock, "result", "result: cannot pickle"),
        (thing, "result", "result.rows[2].held: cannot pickle '_thread.lock' object"),
        ({"a": {"b": (1, lock)}}, "result", "result['a']['b'][1]: cannot pickle"),
        ([Slotted(lock)], "result", "result[0].held: cannot pickle"),
        (((1, thing), {}), "arguments", "args[1].rows[2].held: cannot pickle"),
        (((), {"key": [lock]}), "arguments", "kwargs['key'][0]: cannot pickle"),
        ([lambda: lock], "result", "result[0] (closes over lock): cannot pickle"),
        (lock.acquire, "result", "result"),
        ([1, Rude()], "result", "result[1]: ZeroDivisionError: no thanks"),
    ]


@pytest.mark.parametrize(("value", "what", "text"), culprits(), ids=[text for _, _, text in culprits()])
def test_the_culprit_is_named(codec: Codec, value: Any, what: str, text: str) -> None:
    with pytest.raises(NotPicklable) as caught:
        codec.dumps(value, "s1-e1", what=what)
    assert str(caught.value).startswith(text)


def test_recursion_while_pickling_is_told(codec: Codec) -> None:
    value: list[Any] = []
    for _ in range(50_000):
        value = [value]
    with pytest.raises(NotPicklable, match=r"result: nested too deeply"):
        codec.dumps(value, "s1-e1")


def test_an_exception_comes_back_as_itself(codec: Codec) -> None:
    error = raised(OSError(2, "gone", "file"))
    found = codec.restore(codec.failure(error))
    assert type(found) is FileNotFoundError
    assert found.args == error.args
    assert isinstance(found.__cause__, RemoteTraceback)
    assert "in raised" in str(found.__cause__)


def test_notes_and_causes_are_told(codec: Codec) -> None:
    error = ValueError("outer")
    error.add_note("look here")
    error.__cause__ = KeyError("inner")
    text = failures.read(codec.failure(raised(error))).traceback
    assert "look here" in text
    assert "KeyError: 'inner'" in text


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_a_program_does_not_end_the_one_that_waits(codec: Codec, kind: type[BaseException]) -> None:
    found = codec.restore(codec.failure(raised(kind("x"))))
    assert isinstance(found, StepError)
    assert (found.type_name, found.text) == (kind.__name__, "x")


def test_an_exception_that_loads_as_another_is_told_instead(codec: Codec) -> None:
    found = codec.restore(codec.failure(raised(Unlike("me"))))
    assert isinstance(found, StepError)
    assert found.type_name.endswith(".Unlike")


def test_a_failure_is_told_whatever_the_exception_does(codec: Codec) -> None:
    told = failures.read(codec.failure(raised(Silent())))
    assert told.text == "<its text can't be had: str() raised RuntimeError>"
    assert "in raised" in told.traceback


def test_texts_are_bounded_and_fit_for_utf8(codec: Codec) -> None:
    told = failures.read(codec.failure(raised(ValueError("\ud800" + "x" * 1_000_000))))
    assert len(told.text) < 70_000
    assert "characters left out" in told.text
    told.text.encode()


def test_a_huge_exception_is_told_instead(codec: Codec) -> None:
    payload = codec.failure(raised(ValueError(bytes(5 << 20))))
    assert len(payload) < 300_000
    assert isinstance(codec.restore(payload), StepError)


def test_a_class_that_is_gone_is_told_instead(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = codec.failure(raised(Passing("hm")))
    assert isinstance(codec.restore(payload), Passing)
    monkeypatch.delattr(sys.modules[__name__], "Passing")
    found = codec.restore(payload)
    assert isinstance(found, StepError)
    assert str(found) == f"{__name__}.Passing: hm"


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x91\x01"])
def test_a_damaged_failure_is_refused(codec: Codec, body: bytes) -> None:
    with pytest.raises(DamagedPayload):
        codec.restore(seal(FAILURE, body))


def test_what_a_notebook_made_travels_by_value() -> None:
    """A child without a script pickles an instance of its own class; this process has never seen it."""
    program = (
        "import sys\n"
        "class Own: pass\n"
        "from dq.executor.codec import Codec\n"
        "own = Own(); own.x = 5\n"
        "sys.stdout.buffer.write(Codec().dumps(own, 'a1'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, timeout=60)
    own = Codec().loads(done.stdout)
    assert (type(own).__name__, own.x) == ("Own", 5)


def test_pack_gives_the_constant_for_none() -> None:
    assert pack(None) is pack(None)
