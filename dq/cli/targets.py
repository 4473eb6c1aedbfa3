"""What FILE_OR_MODULE:WORKFLOW names, and the import that makes it."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import types
from typing import Any

import click

_FRAMES = 8  # of the user's traceback


def load(target: str) -> Any:
    """The workflow behind `flows.py:movie` or `package.module:movie`.

    A file becomes this process's script: its functions go on record as functions of that script, just as when
    the script itself starts the run. Its `if __name__ == "__main__":` part does not run.

    Raises:
        UsageError: there is no such file, module or function, it is not a workflow, or its import failed.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise click.UsageError(f"{target!r} is not FILE_OR_MODULE:WORKFLOW, such as flows.py:movie.")
    module = _load_place(place)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise click.UsageError(f"{place} has no {name}. {_offer(module)}")
    if not is_workflow(found):
        raise click.UsageError(f"{name} of {place} is {_kind(found)}, not a workflow. {_offer(module)}")
    return found


def load_scheduled(place: str) -> list[Any]:
    """The workflows of a file or module above which `@dq.schedule` stands. Raises UsageError where there is none."""
    if ":" in place:
        raise click.UsageError(f"{place!r} names one thing; all of a file or module is meant here, such as flows.py.")
    module = _load_place(place)
    found = {id(value): value for value in vars(module).values() if is_workflow(value) and value.schedules}
    if not found:
        raise click.UsageError(f"Nothing in {place} has a schedule: @dq.schedule above @dq.workflow makes one.")
    return list(found.values())


def is_workflow(thing: object) -> bool:
    """Whether `dq.workflow` made it."""
    from dq.flow.decorators import Workflow

    return isinstance(thing, Workflow)


def be_nobody() -> None:
    """Makes this process one without a script: the command `dq` itself is nobody's user code."""
    sys.modules["__main__"] = types.ModuleType("__main__")


def _load_place(place: str) -> types.ModuleType:
    return _load_file(place) if place.endswith(".py") or os.sep in place else _load_module(place)


def _load_file(path: str) -> types.ModuleType:
    from dq.executor import current, script

    if not os.path.isfile(path):
        raise click.UsageError(f"There is no file {path}.")
    with current.importing():
        try:
            return script.load(os.path.abspath(path))
        except Exception as error:
            raise _failed(path, error) from error


def _load_module(name: str) -> types.ModuleType:
    from dq.executor import current

    be_nobody()
    sys.path.insert(0, os.getcwd())
    with current.importing():
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise click.UsageError(
                    f"There is no module {name} here or among the installed ones. For a file, write {name}.py:..."
                ) from error
            raise _failed(name, error) from error
        except Exception as error:
            raise _failed(name, error) from error


def _failed(place: str, error: Exception) -> click.UsageError:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=-_FRAMES))
    return click.UsageError(f"{place} can't be imported:\n{text}")


def _kind(thing: object) -> str:
    return f"an object of type {type(thing).__name__}"


def _offer(module: types.ModuleType) -> str:
    names = [name for name, value in vars(module).items() if is_workflow(value)]
    return f"Its workflows: {', '.join(names)}." if names else "It has no workflows; decorate one with @dq.workflow."
