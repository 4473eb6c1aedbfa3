"""The named statements of queries.sql."""

from __future__ import annotations

import re
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^--.*$\n?", re.MULTILINE)


def parse(text: str) -> dict[str, str]:
    r"""Splits a file of named statements.

    Raises ValueError where a name comes twice or names nothing.

    >>> parse("-- name: one\nSELECT 1;\n")
    {'one': 'SELECT 1;'}
    """
    parts = _NAME.split(text)
    statements: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        statement = _COMMENT.sub("", body).strip()
        if name in statements or not statement:
            raise ValueError(f"statement {name!r} is empty or comes twice")
        statements[name] = statement
    return statements


def read(file: str) -> str:
    """The text of a .sql file of this package."""
    return resources.files("dq.store").joinpath(file).read_text(encoding="utf-8")


SQL = parse(read("queries.sql"))
