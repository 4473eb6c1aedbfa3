"""The demo's computation, and the same in a process without dq."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dq.cli.demo import measure, plain, report

GOOD = 'import os, sys.path\nfrom ast import parse\nfrom . import x\n\n# a comment\nclass A:\n    def f(self): "é"\n'


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "a").mkdir()
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "skipped.py").write_text("")
    (tmp_path / "a" / "good.py").write_text(GOOD)
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "wrong.py").write_text("def (:\n")
    (tmp_path / "torn.py").write_text("x = (\n")
    (tmp_path / "latin.py").write_bytes(b"# coding: nothing\n")
    (tmp_path / "nul.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "bytes.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "deeper.py").write_text("-" * 100_000 + "1")
    (tmp_path / "gone.py").symlink_to("nowhere")
    (tmp_path / "notes.txt").write_text("no source")
    return str(tmp_path)


def test_sources_are_listed_in_order_without_installed_packages(folder: str) -> None:
    names = ["a/good", "bytes", "deeper", "empty", "gone", "latin", "nul", "torn", "wrong"]
    assert measure.list_sources(folder) == [f"{name}.py" for name in names]


def test_a_file_is_measured(folder: str) -> None:
    facts = measure.measure(folder, "a/good.py")
    assert (facts["lines"], facts["comments"], facts["functions"], facts["classes"]) == (7, 1, 1, 1)
    assert facts["imports"] == ["ast", "os", "sys"]
    assert facts["bytes"] == len(GOOD.encode())
    assert facts["error"] == ""


@pytest.mark.parametrize("path", ["wrong.py", "torn.py", "latin.py", "nul.py", "bytes.py", "deeper.py", "gone.py"])
def test_a_file_that_can_not_be_read_or_parsed_is_data(folder: str, path: str) -> None:
    assert measure.measure(folder, path)["error"]


def test_merging_in_two_stages_is_merging_at_once(folder: str) -> None:
    facts = [measure.measure(folder, path) for path in measure.list_sources(folder)] * 20
    total = measure.survey_all(facts)
    assert total["files"] == len(facts) == sum(row[0] for row in total["packages"].values())
    assert total["imports"] == {"ast": 20, "os": 20, "sys": 20}
    assert set(total["errors"]) == set(measure.list_sources(folder)) - {"a/good.py", "empty.py"}
    assert len(measure.chunks(facts)) > 1
    assert measure.digest(total) == measure.digest(json.loads(json.dumps(total)))


def test_the_plain_process_comes_to_the_same_without_dq(folder: str) -> None:
    command = [sys.executable, "-I", plain.__file__, folder, "2"]
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    here = measure.survey_all(measure.measure(folder, path) for path in measure.list_sources(folder))
    assert told == {"survey": json.loads(json.dumps(here)), "digest": measure.digest(here), "dq": False}


def test_the_report_is_written_as_json_and_markdown(folder: str, tmp_path: Path) -> None:
    here = measure.survey_all(measure.measure(folder, path) for path in measure.list_sources(folder))
    stem = str(tmp_path / "report")
    before = set(os.listdir(tmp_path))
    paths = report.write(here, folder, stem)
    assert paths == [f"{stem}.json", f"{stem}.md"]
    assert set(os.listdir(tmp_path)) - before == {"report.json", "report.md"}
    assert measure.digest(json.loads(Path(paths[0]).read_text())) == measure.digest(here)
    text = Path(paths[1]).read_text()
    assert "9 files" in text
    assert "| wrong.py |" in text
