"""What the demo computes: pure functions on source files and their measures. This module never imports dq."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import lzma
import os
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

PRESET = 3  # of lzma: quick, so that the other measures count too
CHUNK = 64  # files that one merge of the second stage takes
_SKIPPED = frozenset({"site-packages", "dist-packages", "__pycache__"})
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LARGEST = 10


class Facts(TypedDict):
    """The measures of one file. `error` is empty, or says why the file could not be read or parsed."""

    path: str
    error: str
    bytes: int
    lines: int
    tokens: int
    comments: int
    functions: int
    classes: int
    packed: int  # bytes after lzma
    sha256: str
    imports: list[str]


class Survey(TypedDict):
    """The measures of many files. `packages` maps a top-level name to [files, lines, bytes, packed bytes]."""

    files: int
    bytes: int
    lines: int
    tokens: int
    comments: int
    functions: int
    classes: int
    packed: int
    sha256: str  # of the digests of all files, in order
    packages: dict[str, list[int]]
    imports: dict[str, int]  # module -> number of files that import it
    largest: list[tuple[int, str]]  # (lines, path), longest first
    errors: dict[str, str]  # path -> why it could not be read or parsed


def list_sources(folder: str) -> list[str]:
    """The paths of all `.py` files under a folder, relative to it and sorted, without installed packages."""
    found: list[str] = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        found += (os.path.relpath(os.path.join(root, name), folder) for name in files if name.endswith(".py"))
    return sorted(found)


def measure(folder: str, path: str, passes: int = 1) -> Facts:
    """Reads, tokenizes, parses, compresses and hashes one file. A file that can't be read or parsed is data too.

    Args:
        folder: Where the files lie.
        path: The file, relative to the folder.
        passes: How many times it is measured anew: with more of them a small folder is hard work too.
    """
    for _ in range(passes - 1):
        _measure(folder, path)
    return _measure(folder, path)


def _measure(folder: str, path: str) -> Facts:
    facts = Facts(
        path=path,
        error="",
        bytes=0,
        lines=0,
        tokens=0,
        comments=0,
        functions=0,
        classes=0,
        packed=0,
        sha256="",
        imports=[],
    )
    try:
        with open(os.path.join(folder, path), "rb") as file:
            text = file.read()
    except OSError as error:
        facts["error"] = f"{type(error).__name__}: {error.strerror}"
        return facts
    facts["bytes"] = len(text)
    facts["lines"] = text.count(b"\n")
    facts["packed"] = len(lzma.compress(text, preset=PRESET))
    facts["sha256"] = hashlib.sha256(text).hexdigest()
    facts["error"] = _tokens(text, facts) or _nodes(text, facts)
    return facts


def _tokens(text: bytes, facts: Facts) -> str:
    try:
        for token in tokenize.tokenize(io.BytesIO(text).readline):
            facts["tokens"] += 1
            if token.type == tokenize.COMMENT:
                facts["comments"] += 1
    except (tokenize.TokenError, SyntaxError, ValueError) as error:
        return f"{type(error).__name__}: {error.args[0]}"
    return ""


def _nodes(text: bytes, facts: Facts) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in strings are not the reader's concern
            tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        return f"{type(error).__name__}: {error.args[0]}"
    except (RecursionError, MemoryError) as error:
        return f"{type(error).__name__}: nested too deeply"  # the parser's own text depends on the caller's depth
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, _DEFINITIONS):
            facts["functions"] += 1
        elif isinstance(node, ast.ClassDef):
            facts["classes"] += 1
        elif isinstance(node, ast.Import):
            imports.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.add(node.module.partition(".")[0])
    facts["imports"] = sorted(imports)
    return ""


def chunks(facts: Sequence[Facts]) -> list[Sequence[Facts]]:
    """What each merge of the second stage takes."""
    return [facts[start : start + CHUNK] for start in range(0, len(facts), CHUNK)]


def merge_files(facts: Sequence[Facts]) -> Survey:
    """The survey of some files."""
    return merge_surveys([_single(one) for one in facts])


def merge_surveys(parts: Sequence[Survey]) -> Survey:
    """The survey of all files of some surveys.

    >>> merge_surveys([])["files"]
    0
    """
    packages: dict[str, list[int]] = {}
    for part in parts:
        for name, numbers in part["packages"].items():
            packages[name] = [a + b for a, b in zip(packages.get(name, [0, 0, 0, 0]), numbers, strict=True)]
    imports = sum((Counter(part["imports"]) for part in parts), Counter[str]())
    largest = sorted((row for part in parts for row in part["largest"]), key=lambda row: (-row[0], row[1]))
    return Survey(
        files=sum(part["files"] for part in parts),
        bytes=sum(part["bytes"] for part in parts),
        lines=sum(part["lines"] for part in parts),
        tokens=sum(part["tokens"] for part in parts),
        comments=sum(part["comments"] for part in parts),
        functions=sum(part["functions"] for part in parts),
        classes=sum(part["classes"] for part in parts),
        packed=sum(part["packed"] for part in parts),
        sha256=hashlib.sha256("".join(part["sha256"] for part in parts).encode()).hexdigest(),
        packages=dict(sorted(packages.items())),
        imports=dict(sorted(imports.items())),
        largest=largest[:_LARGEST],
        errors={path: text for part in parts for path, text in part["errors"].items()},
    )


def _single(facts: Facts) -> Survey:
    package = facts["path"].partition(os.sep)[0].removesuffix(".py")
    return Survey(
        files=1,
        bytes=facts["bytes"],
        lines=facts["lines"],
        tokens=facts["tokens"],
        comments=facts["comments"],
        functions=facts["functions"],
        classes=facts["classes"],
        packed=facts["packed"],
        sha256=facts["sha256"],
        packages={package: [1, facts["lines"], facts["bytes"], facts["packed"]]},
        imports=dict.fromkeys(facts["imports"], 1),
        largest=[(facts["lines"], facts["path"])],
        errors={facts["path"]: facts["error"]} if facts["error"] else {},
    )


def survey_all(facts: Iterable[Facts]) -> Survey:
    """Both stages at once, as the plain computation has them."""
    return merge_surveys([merge_files(chunk) for chunk in chunks(list(facts))])


def digest(value: Any) -> str:
    """Tells two results apart, tuples and lists of the same items excepted: 32 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
