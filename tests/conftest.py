"""What holds for every test: it leaves no process and no file behind, and dumps no core."""

from __future__ import annotations

import compileall
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import leftovers
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
_GRACE = 10.0  # seconds in which what a test has stopped may end

os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(ROOT / ".cache" / "hypothesis")
hypothesis.settings.register_profile(
    "dq",
    database=None,
    deadline=None,  # a machine that runs four tests at once has slow moments
    derandomize="CI" in os.environ,
    print_blob=True,
)
hypothesis.settings.load_profile("dq")


def pytest_configure(config: pytest.Config) -> None:
    """Some tests end processes by SIGSEGV; their cores are of no use to anybody.

    Tests start thousands of processes, and each would compile all modules anew where the environment forbids Python to
    keep what it has compiled.
    """
    if not hasattr(config, "workerinput"):
        for folder in ("dq", "executors", "tests"):
            compileall.compile_dir(ROOT / folder, quiet=2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


@pytest.fixture(scope="session", autouse=True)
def nothing_left_at_the_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Fails at the end of a worker's tests if a process lives or a file lies outside of the tests' folders.

    Tests and what they start see a TMPDIR of their own, which must be empty at the end.
    """
    base = tmp_path_factory.getbasetemp()
    elsewhere = base / "tmpdir"
    elsewhere.mkdir()
    before = leftovers.files(ROOT)
    mark = leftovers.mark()
    patch = pytest.MonkeyPatch()
    patch.setenv("TMPDIR", str(elsewhere))
    patch.setattr(tempfile, "tempdir", None)
    yield mark
    patch.undo()
    alive = _wait_for_ends({}, mark, base)
    assert not alive, f"still alive after the tests: {alive}"
    new = sorted(leftovers.files(ROOT) - before) + sorted(str(path) for path in elsewhere.iterdir())
    assert not new, f"files left after the tests: {new}"


@pytest.fixture(autouse=True)
def nothing_left_by_the_test(nothing_left_at_the_end: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails a test that leaves a process, and kills what it left."""
    base = tmp_path_factory.getbasetemp()
    before = leftovers.processes(nothing_left_at_the_end, base)
    yield
    alive = _wait_for_ends(before, nothing_left_at_the_end, base)
    if alive:
        leftovers.kill(alive)
        pytest.fail(f"the test left processes: {alive}")


def _wait_for_ends(before: dict[int, leftovers.Process], mark: str, base: Path) -> list[leftovers.Process]:
    alive: list[leftovers.Process] = []

    def gone() -> bool:
        alive[:] = leftovers.strangers(before, leftovers.processes(mark, base))
        return not alive

    try:
        wait_until(gone, _GRACE)
    except AssertionError:
        return alive
    return []
