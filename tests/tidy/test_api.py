"""What `import dq` offers: every name is there, sorted and explained."""

from __future__ import annotations

import importlib.metadata
import inspect
import tomllib

import dq
import dq.errors
from tests.tidy.sources import ROOT

_VALUES = {"__version__"}


def test_every_public_name_exists_and_has_a_docstring() -> None:
    missing = [name for name in dq.__all__ if not hasattr(dq, name)]
    assert not missing
    silent = [name for name in dq.__all__ if name not in _VALUES and not inspect.getdoc(getattr(dq, name))]
    assert not silent


def test_names_are_listed_once_and_in_order() -> None:
    assert list(dq.__all__) == sorted(set(dq.__all__))


def test_public_methods_have_docstrings() -> None:
    silent = [
        f"{name}.{attribute}"
        for name in dq.__all__
        if inspect.isclass(cls := getattr(dq, name))
        for attribute, value in vars(cls).items()
        if not attribute.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
        if not inspect.getdoc(getattr(cls, attribute))
    ]
    assert not silent


def test_every_error_is_public() -> None:
    errors = {
        name
        for name, value in vars(dq.errors).items()
        if inspect.isclass(value) and issubclass(value, dq.errors.DqError)
    }
    assert errors <= set(dq.__all__)


def test_the_version_is_told_once() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert importlib.metadata.version("dq-durable") == told
    assert dq.__version__ == told
    assert told in (ROOT / "CHANGELOG.md").read_text()
