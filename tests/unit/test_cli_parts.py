"""The command line's parts: targets, arguments, tables, meters, exit codes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import click
import pytest

import dq
from dq import errors
from dq.cli import exits, table
from dq.cli.main import main
from dq.cli.options import parse_arguments, parse_executors
from dq.cli.progress import open_meter

FLOWS = """
import types
import dq
@dq.workflow
def movie(frames: int) -> int: return frames
@dq.step
def render() -> None: ...
Shelf = types.SimpleNamespace(films=movie)
if __name__ == "__main__":
    raise SystemExit("the script ran as a program")
"""


def load(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    """Loads a target in a process of its own, as a command does: loading changes the process for good."""
    program = (
        "import sys, click\nfrom dq.cli.targets import load\nfrom dq.executor.functions import describe\n"
        "try: print(describe(load(sys.argv[1])).name)\nexcept click.UsageError as error: print(error.message)"
    )
    command = [sys.executable, "-c", program, target]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "wrong.py").write_text("def (:\n")
    return tmp_path


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("flows.py:movie", "__main__:movie"),
        ("./flows.py:Shelf.films", "__main__:movie"),
        ("flows:movie", "flows:movie"),
        ("flows.py", "'flows.py' is not FILE_OR_MODULE:WORKFLOW"),
        (":movie", "':movie' is not FILE_OR_MODULE:WORKFLOW"),
        ("gone.py:movie", "There is no file gone.py."),
        ("gone:movie", "There is no module gone here"),
        ("flows.gone:movie", "There is no module flows.gone here"),
        ("flows.py:film", "flows.py has no film. Its workflows: movie."),
        ("flows.py:render", "render of flows.py is an object of type Step, not a workflow. Its workflows: movie."),
        ("flows:dq", "dq of flows is an object of type module, not a workflow."),
        ("broken.py:x", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("broken:x", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("wrong.py:x", "SyntaxError"),
    ],
)
def test_a_target_is_a_workflow_or_says_what_is_wrong(folder: Path, target: str, said: str) -> None:
    assert said in load(folder, target).stdout


def test_arguments_are_json() -> None:
    assert parse_arguments(("1", '"a"', "[1, null]", '{"b": 2}')) == [1, "a", [1, None], {"b": 2}]


def test_an_argument_that_is_not_json_is_named() -> None:
    with pytest.raises(click.UsageError, match="Argument 2 is not JSON: 'movie'"):
        parse_arguments(("1", "movie"))


def test_executors_have_a_name_and_a_spec() -> None:
    assert parse_executors(("io=thread:64", "x=a:B:2:k=v")) == {"io": "thread:64", "x": "a:B:2:k=v"}


@pytest.mark.parametrize("text", ["io", "=thread:4", "io="])
def test_an_executor_without_name_or_spec_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match="NAME=SPEC"):
        parse_executors((text,))


def test_a_table_is_as_wide_as_its_cells() -> None:
    text = table.render(["id", "n"], [["a\nb", 1], [None, 22], ["x" * 99, 3]])
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("a b ")
    assert lines[3] == "x" * 59 + "…   3"


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0.0 ms"), (59_900_000, "59.9 s"), (3_599_000_000, "59 min 59 s"), (86_400_000_000, "24 h 0 min")],
)
def test_spans(micros: int, text: str) -> None:
    assert table.span(5, 5 + micros) == text


def test_a_pipe_gets_plain_lines_for_what_is_new() -> None:
    stream = io.StringIO()
    with open_meter(stream, "demo") as meter:
        meter.update(0, 0)
        meter.update(1, 4)
        meter.say("something happened")
        meter.update(4, 4, "2 workers")
        meter.update(4, 4, "2 workers")
    lines = stream.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "demo: 0 of ? steps",
        "something happened",
        "demo: 4 of 4 steps",
    ]
    assert lines[-1].endswith("2 workers")


def test_a_quiet_pipe_gets_nothing() -> None:
    stream = io.StringIO()
    with open_meter(stream, "demo", quiet=True) as meter:
        meter.update(1, 2)
        meter.say("something happened")
    assert not stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar() -> None:
    stream = Terminal()
    with open_meter(stream, "demo", quiet=True) as meter:
        meter.update(1, 4, "2 workers")
        meter.say("[kill] -9")
    assert "1/4" in stream.getvalue()
    assert "[kill] -9" in stream.getvalue()


def test_every_error_leads_to_a_code_that_is_documented() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, dq.DqError)]
    for kind in kinds:
        error = kind("a", "b") if kind is dq.StepError else kind("a")
        advice = exits.advise(error)
        assert f"\n  {advice.code} " in exits.HELP
        advice.help.format(db="x")
    assert exits.advise(ZeroDivisionError()).code == exits.FAILED


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ls", "--db", "{tmp}/none.db"], exits.FILE, "there is no database"),
        (["ls", "--db", "{tmp}/none/x.db"], exits.FILE, "mkdir -p"),
        (["show", "x", "--db", "{tmp}/text"], exits.FILE, "is not an SQLite database"),
        (["nothing"], exits.USAGE, "No such command"),
        (["run", "--db", "{tmp}/x.db"], exits.USAGE, "Missing argument"),
        (["run", "{tmp}/gone.py:x", "--db", "{tmp}/x.db"], exits.USAGE, "There is no file"),
        (["demo", "{tmp}/none"], exits.USAGE, "does not exist"),
        (["demo", "{tmp}"], exits.USAGE, "There are no .py files"),
        (["up", "--executor", "io"], exits.USAGE, "NAME=SPEC"),
    ],
    ids=range(9),
)
def test_what_is_wrong_is_said_and_told_by_the_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    before = sys.modules["__main__"]
    try:
        assert main([word.format(tmp=tmp_path) for word in words]) == code
    finally:
        sys.modules["__main__"] = before
    told = capsys.readouterr()
    assert said in told.err
    assert not told.out
    assert not (tmp_path / "x.db").exists()


def test_too_few_kills_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text("")
    before = sys.modules["__main__"]
    try:
        assert main(["demo", str(tmp_path), "--kills", "3"]) == exits.USAGE
    finally:
        sys.modules["__main__"] = before
    assert "Use 4 or more, or --no-chaos" in capsys.readouterr().err


def test_the_list_of_commands_is_what_the_commands_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == exits.OK
    listed = capsys.readouterr().out
    for name in ("demo", "run", "start", "up", "ls", "show", "executors"):
        assert f"  {name} " in listed
        assert main([name, "--help"]) == exits.OK
        assert "--json" in capsys.readouterr().out


class EndsLate:
    """A run whose result is not there in time, and that has ended when one looks again."""

    id = "r"

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def result(self, timeout: float | None) -> int:
        if timeout is not None:
            raise TimeoutError("not yet")
        if self._error is not None:
            raise self._error
        return 7

    def done(self) -> bool:
        return True

    def progress(self) -> tuple[int, int]:
        return 1, 1


class Deaf:
    def update(self, *_: int) -> None:
        pass


@pytest.mark.parametrize("error", [None, TimeoutError("the workflow's own"), ValueError("no")])
def test_a_run_that_ends_while_one_looks_is_asked_once_more(error: Exception | None) -> None:
    from dq.cli.run import _follow

    result, raised = _follow(EndsLate(error), Deaf())  # type: ignore[arg-type]
    assert (result, raised) == (7 if error is None else None, error)
