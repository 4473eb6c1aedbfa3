"""Whatever the umask says, nobody else can read or write a file of dq's, from the moment at which it is there."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from tests.security import places
from tests.store.tracing import strace as strace  # noqa: PLC0414 -- a fixture is found by its name here

_MODE = re.compile(r", (0[0-7]+)$")
_SCRIPT = "program.py"


def test_nothing_is_wider_than_its_owner_at_any_moment(tmp_path: Path, strace: None) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    found = places.traced(folder)
    made = [
        (call, path, arguments)
        for call, path, arguments in found
        if (str(folder) in path and (call.startswith("mkdir") or "O_CREAT" in arguments))
        or (call == "bind" and "F.db.sock" in arguments)
    ]
    names = {path.removeprefix(f"{folder}/") for _, path, _ in made}
    for name in (
        "F.db",
        "F.db-wal",
        "F.db-shm",
        "F.db.lock",
        "F.db.crew",
        "F.db.slots",
        "F.db.stacks",
        "F.db.blobs",
        "copy.db.part",
    ):
        assert name in names, f"the trace does not show how {name} is made"
    wide = []
    for call, path, arguments in made:
        mode = _MODE.search(arguments)
        if call != "bind" and (mode is None or int(mode[1], 8) & 0o077):
            wide.append((call, path, arguments))
    assert not wide
    at = next(
        number for number, (call, _, arguments) in enumerate(found) if call == "bind" and "F.db.sock" in arguments
    )
    masks = [arguments for call, _, arguments in found[:at] if call == "umask"]
    assert masks[-1] == "0177", "the socket is bound while the umask lets nobody else in"
    widened = [
        arguments
        for call, path, arguments in found
        if "chmod" in call and str(folder) in path and (mode := _MODE.search(arguments)) and int(mode[1], 8) & 0o077
    ]
    assert not widened
    _nobody_else(folder)


def _nobody_else(folder: Path) -> None:
    """What lies there at the end; a program of the test's own aside."""
    wide = [
        (str(path), stat.filemode(status.st_mode))
        for parent, folders, files in os.walk(folder)
        for name in [*folders, *files]
        if name != _SCRIPT
        for path in [Path(parent, name)]
        if (status := path.lstat()).st_mode & 0o077
    ]
    assert not wide
    assert any(path.is_file() for path in (folder / "F.db.blobs").rglob("*"))
    assert any(path.is_file() for path in (folder / "copy.db.blobs").rglob("*"))


@pytest.mark.parametrize("call", ['1 openat(AT_FDCWD, "/x/F.db", O_RDWR|O_CREAT, 0644) = 3'])
def test_a_wide_mode_is_seen(call: str) -> None:
    parsed = places._parsed(call)
    assert parsed is not None
    mode = _MODE.search(parsed[2])
    assert mode is not None
    assert int(mode[1], 8) & 0o077
