"""The project's own files, as the tidy tests read them."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("dq", "executors/dq_executors")
_CACHES = frozenset({".cache", ".git", ".venv", "__pycache__", "build", "dist"})


def files(*folders: str, suffix: str = ".py") -> list[Path]:
    """The files below these folders of the project, in order."""
    found: list[Path] = []
    for folder in folders:
        found.extend(
            path
            for path in sorted((ROOT / folder).rglob(f"*{suffix}"))
            if not _CACHES.intersection(path.relative_to(ROOT).parts)
        )
    return found


def name(path: Path) -> str:
    """The path as people write it, relative to the project."""
    return str(path.relative_to(ROOT))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name(path))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def docstrings(module: ast.Module) -> set[ast.Constant]:
    """The nodes that are docstrings."""
    found: set[ast.Constant] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and ast.get_docstring(node):
                found.add(first.value)
    return found
