"""What all parts of the suite share: the executor under test and a member of it."""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

import pytest

from dq.testing.rig import Forge, Member


class Bound:
    """The base of the suite. Each test has a member of its own, and folders of its own."""

    spec: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def forge(cls) -> Generator[Forge]:
        """Forks the members of all tests of the class."""
        with Forge(cls.spec) as forge:
            yield forge

    @pytest.fixture
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        """Where the files of the test's members lie."""
        return str(tmp_path_factory.mktemp("crew"))

    @pytest.fixture
    def member(self, forge: Forge, folder: str) -> Generator[Member]:
        """A member that has joined."""
        with forge.member(folder) as member:
            yield member
