"""The report that the demo's workflow writes beside the database, as JSON and as Markdown."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dq.cli.demo.measure import Survey

_ROWS = 10  # of each table


def write(survey: Survey, folder: str, stem: str) -> list[str]:
    """Writes STEM.json and STEM.md, each in one go, so that a kill leaves an old one or a new one. Returns their paths."""
    texts = {f"{stem}.json": json.dumps(survey, indent=1), f"{stem}.md": markdown(survey, folder)}
    for path, text in texts.items():
        draft = f"{path}.{os.getpid()}.draft"
        Path(draft).write_text(text, errors="backslashreplace")
        Path(draft).replace(path)
    return list(texts)


def markdown(survey: Survey, folder: str) -> str:
    """The report as a person reads it."""
    share = survey["packed"] / survey["bytes"] if survey["bytes"] else 1.0
    packages = sorted(survey["packages"].items(), key=lambda item: (-item[1][1], item[0]))[:_ROWS]
    imports = sorted(survey["imports"].items(), key=lambda item: (-item[1], item[0]))[:_ROWS]
    lines = [
        f"# The Python files of {folder}",
        "",
        (
            f"{survey['files']:,} files, {survey['lines']:,} lines, {survey['tokens']:,} tokens,"
            f" {survey['comments']:,} comments, {survey['functions']:,} functions, {survey['classes']:,} classes;"
            f" {survey['bytes']:,} bytes, {share:.1%} of that after lzma."
        ),
        "",
        *_table("largest packages | files | lines | bytes | packed", [[name, *row] for name, row in packages]),
        *_table("most imported | by files", [list(row) for row in imports]),
        *_table("longest files | lines", [[path, count] for count, path in survey["largest"]]),
        *_table("not parsed | why", [list(row) for row in list(survey["errors"].items())[:_ROWS]]),
        f"sha256 of all: `{survey['sha256']}`",
        "",
    ]
    return "\n".join(lines)


def _table(heads: str, rows: list[list[str | int]]) -> list[str]:
    if not rows:
        return []
    body = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return [f"| {heads} |", "|" + " --- |" * (heads.count("|") + 1), *body, ""]


def _cell(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value.replace("|", "\\|").replace("\n", " ")
