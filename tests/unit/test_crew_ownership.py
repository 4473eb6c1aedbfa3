"""One supervisor for a file: who comes second is told who is first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dq.crew.ownership import Ownership, holders, started
from dq.errors import DatabaseInUse
from dq.executor.slots import SlotReader, open_slots

_MEMBER = "import sys, signal; from dq.crew.ownership import share_crew; share_crew(sys.argv[1]); print(flush=True); signal.pause()"


def test_the_second_supervisor_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    db = str(tmp_path / "f.db")
    first, second = Ownership(db), Ownership(db)
    first.take(4711)
    with pytest.raises(DatabaseInUse, match="4711") as refused:
        second.take(4712)
    assert refused.value.pid == 4711
    first.release()
    second.take(4712)
    second.release()


def test_the_lock_file_stays(tmp_path: Path) -> None:
    """A lock on an unlinked file would exclude nobody."""
    owner = Ownership(str(tmp_path / "f.db"))
    owner.take(1)
    before = os.stat(tmp_path / "f.db.lock").st_ino
    owner.release()
    assert os.stat(tmp_path / "f.db.lock").st_ino == before


def test_a_successor_kills_the_members_of_its_predecessor(tmp_path: Path) -> None:
    db = str(tmp_path / "f.db")
    memory = open_slots(db + ".slots", create=True)
    with subprocess.Popen([sys.executable, "-c", _MEMBER, db], stdout=subprocess.PIPE) as member:
        assert member.stdout
        member.stdout.readline()
        assert list(holders(db)) == [member.pid]
        assert Ownership(db).evict(SlotReader(memory)) == [member.pid]
        assert started(member.pid) == 0
        assert member.wait(20) == -9
    assert list(holders(db)) == []
    memory.close()
