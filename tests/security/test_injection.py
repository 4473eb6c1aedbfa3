"""What people type into a filter, an id or a name stays a value: it is never a part of a statement."""

from __future__ import annotations

import ast
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import dq
from dq.cli.main import main
from tests.process.crews import rows
from tests.security import unsafeflows
from tests.tidy.sources import files, name, tree

CORPUS = [
    "' OR '1'='1", "'; DROP TABLE dq_run; --", '" OR ""="', "1; DELETE FROM dq_step", "x' UNION SELECT salt FROM dq_engine --",
    "%", "_", "*", "\\", "1 OR 1=1", "0x1", "-1", "9223372036854775808", "NULL", "?1", ":id", "$id", "@id", "(SELECT 1)",
    "[1,2]", '{"a":1}', "'||(SELECT max(id) FROM dq_run)||'", "/*", "--", "\u2019 OR 1=1", "completed' --",
]  # fmt: skip
# Who hands a text that is not a constant to SQLite: all of it comes from *.sql files, or is a user's own statement.
_GIVEN = {"sql", "statement", "SQL", "text"}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    db = tmp_path_factory.mktemp("filled") / "F.db"
    unsafeflows.fill(str(db))
    return db, _content(db)


def _content(db: Path) -> list[Any]:
    """All that a stranger's statement would change or drop."""
    schema = rows(db, "SELECT name, sql FROM sqlite_master ORDER BY name")
    return [
        schema,
        rows(db, "SELECT id, name, state FROM dq_run ORDER BY id"),
        rows(db, "SELECT id, args FROM dq_step ORDER BY id"),
    ]


def test_every_filter_and_id_of_the_commands(
    filled: tuple[Path, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    db, before = filled
    for number, word in enumerate(CORPUS):
        lines = [
            ["show", "--", word], ["dead", "ls", "--workflow", word], ["dead", "ls", "--step", word],
            ["dead", "ls", "--since", word], ["dead", "show", "--", word], ["ls", "--limit", word],
        ]  # fmt: skip
        if number == 1:  # each of these asks a supervisor, in a process of its own
            lines += [["schedules", "pause", "--", word], ["queue", "pause", "--", word], ["retry", "--", word]]
        for line in lines[number % 2 :: 2] if len(lines) == 6 else lines:
            cut = line.index("--") if "--" in line else len(line)
            code = main([*line[:cut], "--db", str(db), *line[cut:]])
            told = capsys.readouterr()
            assert code in (0, 2), (line, told.err)
            assert "sqlite" not in told.err.lower(), line
            assert "done" not in told.out, f"{line} shows what it was not asked for"
    assert _content(db) == before


def test_a_text_that_is_looked_for_has_no_wildcards(
    filled: tuple[Path, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    db, _ = filled
    for word in ("%", "' OR '1'='1", "unsafe%lows", "unsafeflow_", "Value*"):
        assert main(["dead", "ls", "--like", word, "--db", str(db)]) == 0
        assert capsys.readouterr().out == ""


def test_every_id_and_name_of_the_api(filled: tuple[Path, list[Any]]) -> None:
    db, before = filled
    with dq.Client(db) as client:
        for word in CORPUS:
            _ask_with(client, word)
    assert _content(db) == before


def _ask_with(client: dq.Client, word: str) -> None:
    for ask in (client.get, client.cancel, client.resume, client.retry, client.fork, client.unschedule):
        with pytest.raises(dq.DqError):
            ask(word)
    with pytest.raises(dq.NoSuchRun):
        client.signal(word, "go")
    with pytest.raises((dq.BadFork, dq.BadName)):
        client.fork("done", word)
    with pytest.raises(ValueError, match=r"is not a valid RunState"):
        list(client.list(word))
    with suppress(dq.DqError):
        client.discard(word)
    assert client.get("waits").published(word, "nothing") == "nothing"
    assert client.queue(word).info().waiting == 0


def test_an_id_that_looks_like_a_statement_is_an_id(tmp_path: Path) -> None:
    with dq.Engine(tmp_path / "F.db", workers=0) as engine:
        for word in CORPUS:
            assert engine.start(unsafeflows.waits, id=word).id == word
            assert engine.get(word).id == word
        assert sorted(run.id for run in engine.list()) == sorted(CORPUS)


def test_no_statement_is_put_together_from_values() -> None:
    """What is executed is a constant, or comes by name from a file of statements, or is a user's own text, which has no way to dq's tables."""
    made = [
        f"{name(path)}:{node.lineno}: {ast.unparse(node.args[0])[:80]}"
        for path in files("dq", "executors")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
        if node.func.attr in {"execute", "executemany", "executescript", "pragma"}
        if _is_made(node.args[0])
    ]
    assert not made


def _is_made(node: ast.expr) -> bool:
    """Whether a text is computed here: an f-string with more than numbers in it, a sum, a `%`, a format, a join, a replace."""
    if isinstance(node, ast.JoinedStr):
        values = [ast.unparse(part.value) for part in node.values if isinstance(part, ast.FormattedValue)]
        return not all(value.startswith("int(") for value in values)
    if isinstance(node, ast.BinOp):
        return True
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"format", "join", "replace"}
    )


@pytest.mark.parametrize("text", ['f"SELECT {x}"', '"SELECT " + x', '"SELECT %s" % x', '"{}".format(x)', '" ".join(x)'])
def test_a_statement_that_is_put_together_is_seen(text: str) -> None:
    assert _is_made(ast.parse(text, mode="eval").body)
