"""The scripts in the docs run, and print what stands behind them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n[^\n`]*)?(?:\n```text\n(?P<output>.*?)```)?", re.DOTALL)
_SCRIPTS = [
    pytest.param(found["code"], found["output"], id=f"{page.stem}-{number}")
    for page in sorted(_DOCS.glob("*.md"))
    for number, found in enumerate(_EXAMPLE.finditer(page.read_text()), 1)
    if "__main__" in found["code"]
]


@pytest.mark.parametrize(("code", "output"), _SCRIPTS)
def test_a_script_of_the_docs_runs(tmp_path: Path, code: str, output: str | None) -> None:
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    if output is not None:
        assert done.stdout == output
