"""What the docs point to exists."""

from __future__ import annotations

import ast
import re

from tests import sweeps
from tests.tidy.sources import ROOT, files, functions, name

_PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *files("docs", suffix=".md")]
_PATH = re.compile(r"`((?:dq|executors|tests|benchmarks|docs)/[\w./-]*)(?:::(\w+))?`")
_ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<keeper>[^|]+) \| (?P<breaker>[^|]*) ?\|$", re.MULTILINE)


def test_links_lead_somewhere() -> None:
    broken = [
        f"{name(page)}: {target}"
        for page in _PAGES
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_files_and_tests_that_are_named_exist() -> None:
    broken = []
    for page in _PAGES:
        for path, test in _PATH.findall(page.read_text()):
            there = (ROOT / path).exists()
            if not there or (test and test not in {function.name for function in functions(ROOT / path)}):
                broken.append(f"{name(page)}: {path}{'::' if test else ''}{test}")
    assert not broken


def test_every_invariant_names_its_keeper_and_the_test_that_would_break() -> None:
    section = (ROOT / "docs" / "design.md").read_text().split("## Invariants\n", 1)[1].split("\n## ", 1)[0]
    rows = [match for match in _ROW.finditer(section) if not match["what"].startswith(("what holds", "---"))]
    assert len(rows) >= 20
    unkept = [row["what"] for row in rows if not re.fullmatch(r"`[\w./]+`", row["keeper"].strip())]
    assert not unkept
    untested = [row["what"] for row in rows if not _PATH.search(row["breaker"])]
    assert not untested


def test_the_rooms_of_the_docs_are_the_folders() -> None:
    section = (ROOT / "docs" / "design.md").read_text().split("## Rooms\n", 1)[1]
    told = set(re.findall(r"^\| `(dq/\w+)` \|", section, re.MULTILINE))
    assert told == {name(path.parent) for path in (ROOT / "dq").glob("*/__init__.py")}


def test_the_record_of_sweeps_is_shown() -> None:
    assert sweeps.shown(sweeps.PAGE.read_text()) == sweeps.table(), "run: python -m tests.sweeps"


def test_examples_are_python() -> None:
    examples = [text for page in _PAGES for text in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    assert examples
    for text in examples:
        ast.parse(text)


def test_the_readme_s_targets_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z]+)\b", (ROOT / "README.md").read_text()))
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
