"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib

from tests.tidy.sources import ROOT, SHIPPED, files


def test_examples_in_docstrings() -> None:
    tried = 0
    for path in files(*SHIPPED):
        if ">>> " in path.read_text():
            root = ROOT / "executors" if "executors" in path.parts else ROOT
            module = importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))
            failed, attempted = doctest.testmod(module)
            assert not failed, f"{path}: run `python -m doctest` to see"
            tried += attempted
    assert tried
