"""With a signing key nothing is unpickled that somebody without it has made, changed or moved; and the key stays where it belongs."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

import dq
from dq.cli.main import main
from dq.executor import frames, signed, signing
from dq.executor.codec import Codec
from dq.executor.frames import Define
from dq.executor.signing import ARGUMENTS, CODE, VALUE, Signer
from dq.model.payload import FAILURE, PICKLE, seal
from tests.process.crews import rows, serving
from tests.security import plants, unsafeflows
from tests.waiting import wait_until

KEY = b"a key of thirty-two bytes, at least"
SIGNER = Signer(KEY)


@dq.step(stop=tenacity.stop_after_attempt(2), retry=tenacity.retry_if_exception_type(ValueError))
def second_time(number: int) -> int:
    cursor = dq.current().cursor
    dq.progress(1)
    if cursor is None:
        raise ValueError(number)
    return number


@dq.step
def environment(key: str) -> list[str]:
    """Where a body and what it starts could come across the key."""
    told = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    lines = Path("/proc/self/cmdline").read_bytes() + Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    return [place for place, text in (("environment", told), ("arguments", lines.decode())) if key in text]


@dq.step
def asks() -> None:
    dq.enqueue(second_time, 5)
    dq.signal("all", "go", {"by": "ann"})


@dq.workflow
def everything(size: int) -> Any:
    dq.publish("size", [size])
    asks()
    told = dq.wait_signal("go")
    dq.sleep(0.001)
    try:
        unsafeflows.refuse()
    except ValueError as error:
        return told, str(error), second_time(3), len(dq.step(bytes)(size)), unsafeflows.add.map([1, 2], [3, 4])
    return None


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that was written with the key: everything that is signed happens in it."""
    db = tmp_path_factory.mktemp("signed") / "F.db"
    with dq.Engine(db, workers=1, executors={"io": "thread:2"}, signing_key=KEY) as engine:
        run = engine.start(everything, 300_000, id="all")
        assert run.result(60) == ({"by": "ann"}, "no", 3, 300_000, [4, 6])
        assert run.published("size") == [300_000]
        assert engine.submit(lambda number: number * 2, 4).result(30) == 8
        assert engine.submit(unsafeflows.add.options(executor="io"), 1, 2).result(30) == 3
        assert isinstance(engine.submit(os._exit, 3).exception(30), dq.StepCrashed)
        assert engine.fork("all", "tests.security.unsafeflows:refuse").result(30)[2] == 3
        engine.start(unsafeflows.waits, id="waits")
        wait_until(
            lambda: rows(db, "SELECT count(*) FROM dq_steps WHERE run = 'waits' AND state = 'completed'") == [(1,)]
        )
    return db


@pytest.fixture
def db(filled: Path, tmp_path: Path) -> Path:
    made = tmp_path / "F.db"
    with closing(connect(filled)) as old, closing(connect(made)) as new:
        old.backup(new)
    shutil.copytree(f"{filled}.blobs", f"{made}.blobs")
    return made


def test_an_executor_whose_workers_are_started_afresh(tmp_path: Path) -> None:
    """Then the key goes to each of them, and not through a template."""
    with dq.Executor(tmp_path / "F.db", 1, start_method="spawn", signing_key=KEY) as pool:
        assert list(pool.map(pow, range(4), range(4), chunksize=2)) == [1, 1, 4, 27]
        assert pool._engine.start(unsafeflows.later_on).result(30) == 7


def test_everything_on_record_is_signed(filled: Path) -> None:
    with closing(connect(filled)) as file:
        for table, column in plants.PLACES - {("dq_function", "code"), ("dq_function", "options")}:
            for (payload,) in file.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"):
                assert payload[5:6] == b"\xc1", (table, payload[:40])
        codes = [code for (code,) in file.execute("SELECT code FROM dq_function WHERE code IS NOT NULL")]
    assert codes
    assert all(code[:1] == b"\xc1" for code in codes)


@pytest.mark.parametrize("key", [None, b"another key of thirty-two bytes, at least"], ids=["none", "other"])
def test_without_the_key_nothing_comes_out(db: Path, key: bytes | None) -> None:
    with dq.Engine(db, workers=1, signing_key=key) as engine:
        with pytest.raises(dq.SignatureMismatch, match="is unpickled"):
            engine.get("all").result(20)
        with pytest.raises(dq.RunBlocked, match="SignatureMismatch"):
            engine.get("waits").result(20)
    with dq.Engine(db, workers=1, signing_key=KEY) as engine:
        engine.resume("waits")
        engine.signal("waits", "go", 1)
        engine.signal("waits", "again", 2)
        assert engine.get("waits").result(30) == (1, 2), "nothing was lost"


def test_what_was_planted_is_neither_run_nor_read(db: Path, tmp_path: Path) -> None:
    """Every pickle of the file is somebody else's now: the run is blocked, with what to do; others get the error; no marker."""
    marker = tmp_path / "marker"
    plants.plant(db, marker)
    with closing(connect(db)) as file:
        file.execute("DELETE FROM dq_progress")
        file.commit()
    with dq.Engine(db, workers=1, signing_key=KEY) as engine:
        with pytest.raises(dq.RunBlocked, match=r"carry no signature.*dq up --until-idle"):
            engine.get("waits").result(20)
        run = engine.get("all")
        with pytest.raises(dq.SignatureMismatch, match="carry no signature"):
            run.result()
        with pytest.raises(dq.SignatureMismatch, match="carry no signature"):
            run.published("size")
        assert engine.submit(abs, -4).result(30) == 4, "the engine works on"
    assert not marker.exists()


def test_a_step_of_a_run_whose_arguments_were_changed_is_not_begun(tmp_path: Path) -> None:
    """Its run is blocked and does not fail; from that step on it goes on in a fork."""
    db, marker = tmp_path / "F.db", tmp_path / "marker"
    with dq.Engine(db, workers=1, signing_key=KEY) as engine:
        run = engine.start(unsafeflows.later, id="later")
        wait_until(lambda: run.progress()[1] == 1)
    with closing(connect(db)) as file:
        ((step,),) = file.execute("SELECT id FROM dq_step").fetchall()
        file.execute("UPDATE dq_step SET args = ?", (plants.value(marker),))
        file.commit()
    with dq.Engine(db, workers=1, signing_key=KEY) as engine:
        engine.release(step)
        with pytest.raises(dq.RunBlocked, match=r"a step was not begun. SignatureMismatch: .*carry no signature"):
            engine.get("later").result(30)
        again = engine.fork("later", step)
        wait_until(lambda: again.progress()[1] == 1)
        engine.release(max(id for (id,) in rows(db, "SELECT id FROM dq_step")))
        assert again.result(30) == 3
    assert not marker.exists()


def test_arguments_of_a_step_alone_that_were_changed(tmp_path: Path) -> None:
    """It is not begun, and stands among the dead letters."""
    db, marker = tmp_path / "F.db", tmp_path / "marker"
    with dq.Client(db, signing_key=KEY) as client:
        client.start(unsafeflows.done, id="r")
        step = client.submit(unsafeflows.add, 1, 2)
        client.flush()
        number = step._id  # type: ignore[attr-defined]
    with closing(connect(db)) as file:
        file.execute("UPDATE dq_step SET args = ? WHERE id = ?", (plants.value(marker), number))
        file.commit()
    with dq.Engine(db, workers=1, signing_key=KEY) as engine:
        assert engine.get("r").result(30) == 3
        letter = wait_until(engine.dead)[0]
        assert letter.type == "dq.errors.SignatureMismatch"
    assert not marker.exists()


@pytest.mark.parametrize("value", [1, bytes(300_000)], ids=["inline", "aside"])
def test_a_payload_is_what_was_signed_or_an_error(tmp_path: Path, value: Any) -> None:
    codec = signed.make(str(tmp_path / "F.db.blobs"), SIGNER)
    payload = codec.dumps(value, "a1")
    assert codec.loads(payload) == value
    with pytest.raises(dq.SignatureMismatch):
        codec.load_call(payload)
    with pytest.raises(dq.SignatureMismatch, match="no signing key is in use"):
        Codec(codec.folder).loads(payload)
    with pytest.raises(dq.SignatureMismatch):
        codec.loads(seal(PICKLE, pickle.dumps(1)))
    with pytest.raises(dq.SignatureMismatch, match="no signing key is in use"):
        Codec().restore(codec.failure(ValueError("x")))
    with pytest.raises(dq.SignatureMismatch):
        codec.loads(FAILURE + codec.failure(ValueError())[1:])
    assert str(codec.restore(codec.failure(ValueError("x")))) == "x"


def test_a_side_file_that_was_changed_with_its_checksum(tmp_path: Path) -> None:
    """A checksum can be made to fit by anybody; the signature of the content can not."""
    codec = signed.make(str(tmp_path / "F.db.blobs"), SIGNER)
    payload = codec.dumps(bytes(300_000), "a1")
    (file,) = (path for path in (tmp_path / "F.db.blobs").rglob("*") if path.is_file())
    data = bytearray(file.read_bytes())
    data[-1000:-996] = b"\x01\0\0\0"
    file.chmod(0o600)
    file.write_bytes(_same_sum(bytes(data), file.read_bytes()))
    with pytest.raises(dq.SignatureMismatch, match="does not match its signature"):
        codec.loads(payload)


def _same_sum(data: bytes, wanted: bytes) -> bytes:
    """The data with four bytes near its end set so that its CRC-32 is that of `wanted`: the sum is linear, so bits can be solved for."""
    from zlib import crc32

    made, at = bytearray(data), len(data) - 100
    made[at : at + 4] = bytes(4)
    target = crc32(wanted) ^ crc32(made)
    basis: list[tuple[int, int]] = []
    for bit in range(32):
        made[at + bit // 8] ^= 1 << bit % 8
        effect, chosen = crc32(made) ^ crc32(bytes(made[:at]) + bytes(4) + bytes(made[at + 4 :])), 1 << bit
        made[at + bit // 8] ^= 1 << bit % 8
        for other, bits in basis:
            if effect ^ other < effect:
                effect, chosen = effect ^ other, chosen ^ bits
        if effect:
            basis = sorted([*basis, (effect, chosen)], reverse=True)
    solution = 0
    for other, bits in basis:
        if target ^ other < target:
            target, solution = target ^ other, solution ^ bits
    assert target == 0
    made[at : at + 4] = solution.to_bytes(4, "little")
    assert crc32(made) == crc32(wanted)
    return bytes(made)


@given(st.binary(max_size=300), st.data())
def test_no_changed_bit_and_no_other_kind_passes(content: bytes, data: st.DataObject) -> None:
    made = SIGNER.sign(VALUE, content, b"p")
    assert bytes(SIGNER.check(VALUE, made, b"p")) == content
    at = data.draw(st.integers(0, len(made) * 8 - 1))
    changed = bytearray(made)
    changed[at // 8] ^= 1 << at % 8
    for kind, tag, told in (
        (VALUE, b"p", bytes(changed)),
        (ARGUMENTS, b"p", made),
        (VALUE, b"f", made),
        (VALUE, b"p", made[:20]),
    ):
        with pytest.raises(dq.SignatureMismatch):
            SIGNER.check(kind, told, tag)


def test_a_function_s_code_belongs_to_its_name() -> None:
    define = Define(1, "shop:pay", "step", b"d" * 16, b"\x80code", "", 3)
    made = SIGNER.introduce(define)
    assert made.digest != define.digest, "one that was recorded without a signature is another function"
    assert bytes(SIGNER.check(CODE, made.code, b"shop:pay")) == define.code
    with pytest.raises(dq.SignatureMismatch):
        SIGNER.check(CODE, made.code, b"shop:refund")


def test_two_keys_at_one_file_are_told_at_the_door(tmp_path: Path) -> None:
    db = tmp_path / "F.db"
    with dq.Engine(db, workers=0, signing_key=KEY):
        for key, words in ((None, "you have none"), (b"x" * 32, "you have another one")):
            with pytest.raises(dq.SignatureMismatch, match=words):
                dq.Client(db, signing_key=key)
        with dq.Client(db, signing_key=KEY) as client:
            client.flush()
    with (
        serving(db, "--workers", "0"),
        pytest.raises(dq.SignatureMismatch, match="with no signing key, and you have one"),
    ):
        dq.Client(db, signing_key=KEY)


def test_the_key_is_shown_nowhere(tmp_path: Path) -> None:
    db = tmp_path / "F.db"
    with dq.Engine(db, workers=1, signing_key=KEY) as engine:
        assert engine.submit(environment, KEY.decode()).result(30) == []
        for row in engine.census().rows if hasattr(engine.census(), "rows") else ():
            assert KEY not in Path(f"/proc/{row.pid}/environ").read_bytes()
        shown = [repr(engine), repr(engine._line), repr(vars(engine)), repr(vars(engine._line._launcher)), repr(SIGNER)]
        shown += [repr(frames.Hello(1, 2, b"", None, key=KEY)), str(vars(engine._line.codec))]
        assert not any(KEY.decode() in text for text in shown)
        for carry in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="is not pickled"):
                carry(SIGNER)
    for path in tmp_path.rglob("*"):
        # The body above was given the key as an argument; its row is the one place that may hold it.
        if path.is_file() and path.name not in {"F.db", "F.db-wal"}:
            assert KEY not in path.read_bytes(), path
    assert rows(db, "SELECT count(*) FROM dq_engine WHERE instr(CAST(salt AS BLOB), CAST('a key of' AS BLOB))") == [
        (0,)
    ]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key"
    file.write_bytes(KEY)
    file.chmod(mode)
    with pytest.raises(dq.SignatureMismatch, match=r"Make a new key.*chmod 600"):
        dq.Engine(tmp_path / "F.db", signing_key=file)
    assert main(["--signing-key-file", str(file), "ls", "--db", str(tmp_path / "F.db")]) == 3
    assert not (tmp_path / "F.db").exists()


@pytest.fixture
def key_file(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "key"
    file.write_bytes(KEY + b"\n")
    file.chmod(0o600)
    yield file
    signing.use(b"")


def test_what_is_no_key(tmp_path: Path, key_file: Path) -> None:
    os.symlink(key_file, tmp_path / "link")
    for key, error in ((b"short", ValueError), (b"x" * 5000, ValueError), ("k" * 40, TypeError), (7, TypeError),
                       (tmp_path / "link", dq.SignatureMismatch), (tmp_path / "none", dq.SignatureMismatch)):  # fmt: skip
        with pytest.raises(error):
            dq.Client(tmp_path / "F.db", signing_key=key)  # type: ignore[arg-type]
    assert signing.read_key(key_file) == KEY


def test_the_commands_take_the_key(db: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the option and by the variable; `dq check` and `dq replay` play signed runs."""
    command = [sys.executable, "-m", "dq"]
    environ = {key: value for key, value in os.environ.items() if key != "DQ_SIGNING_KEY_FILE"}

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words], env={**environ, **more}, capture_output=True, text=True, check=False, timeout=60
        )

    option = ["--signing-key-file", str(key_file)]
    assert run(*option, "check", "--db", str(db)).returncode == 0
    replayed = run("replay", "all", "--db", str(db), DQ_SIGNING_KEY_FILE=str(key_file))
    assert "as on record" in replayed.stdout, replayed.stderr
    assert main([*option, "signal", "waits", "go", "1", "--db", str(db)]) == 0
    with dq.Client(db, signing_key=KEY) as client:
        assert client.get("waits").id == "waits"
