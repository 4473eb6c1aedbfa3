"""What others have written is shown on a terminal, and does nothing there."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dq
from dq.cli.main import main
from dq.model.screen import safe

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\u202etxt.exe"


@dq.workflow
def shouts() -> None:
    error = ValueError(EVIL)
    error.add_note(EVIL)
    raise error


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has failed with such a text, one that is blocked for such a reason, and such names, as only a tampered file has them."""
    db = tmp_path_factory.mktemp("screen") / "F.db"
    with dq.Engine(db, workers=1) as engine:
        with pytest.raises(ValueError, match="owned"):
            engine.start(shouts, id="shouts").result(30)
        assert isinstance(engine.submit(int, EVIL).exception(30), ValueError)
    with closing(connect(db)) as made:
        made.execute("UPDATE dq_function SET name = name || ?", (EVIL,))
        made.execute(
            "INSERT INTO dq_run (id, name, function, args, fingerprint, state, created_at, reason) "
            "SELECT id + 1, ?, function, args, fingerprint, 'blocked', created_at, ? FROM dq_run",
            (f"blocked{EVIL}", EVIL),
        )
        made.execute(
            "INSERT INTO dq_attempt (step, attempt, epoch, outcome, pid, charged, cause, ended_at) "
            "SELECT id, 9, 1, 'crashed', 1, 1, ?, 1 FROM dq_step",
            (f"{EVIL}\nsecond line {EVIL}",),
        )
        made.commit()
    return db


def test_no_command_lets_it_through(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(connect(file)) as made:
        (step,) = made.execute("SELECT max(id) FROM dq_step").fetchone()
    for line in (
        ["ls"], ["show", "shouts"], ["show", f"blocked{EVIL}"], ["show", str(step)], ["show", EVIL], ["dead", "ls"],
        ["dead", "ls", "--group"], ["dead", "show", "shouts"], ["dead", "show", str(step)], ["doctor"],
        ["signal", EVIL, EVIL], ["queues"], ["schedules"],
    ):  # fmt: skip
        for json in ([], ["--json"]) if line[0] in {"ls", "show"} else ([],):
            main([*line, *json, "--db", str(file)])
            told = capsys.readouterr()
            for text in (told.out, told.err):
                assert _is_harmless(text), (line, text)
    main(["show", "shouts", "--db", str(file)])
    assert "\\x1b]0;owned\\x07" in capsys.readouterr().out, "it is shown, and not left out"


@settings(max_examples=200)
@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF)))
def test_any_text(text: str) -> None:
    assert _is_harmless(safe(text))
    safe(text).encode()
    plain = "".join(character for character in text if character.isprintable())
    assert safe(plain) == plain


def _is_harmless(text: str) -> bool:
    return not any((ord(one) < 32 and one not in "\n\t") or 0x7F <= ord(one) < 0xA0 or one == "\u202e" for one in text)
