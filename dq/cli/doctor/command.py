"""`dq doctor`."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from dq.cli import exits
from dq.cli.options import db_option, json_option
from dq.model.screen import safe

if TYPE_CHECKING:
    from dq.cli.doctor.finding import Finding


@click.command("doctor")
@db_option
@json_option
def command(db: str, as_json: bool) -> int:
    """Check a database and what it stands on; say what is wrong, why it matters, and what to do.

    Only reads; works while a supervisor works on it. The exit code is 0 where nothing but notes is found.
    """
    from dq.cli.doctor.finding import NOTE

    findings = list(examine(db))
    healthy = all(finding.level == NOTE for finding in findings)
    if as_json:
        print(json.dumps({"db": db, "healthy": healthy, "findings": [one._asdict() for one in findings]}, indent=1))
    else:
        for one in findings:
            print(safe(f"{one.level}: {one.check}: {one.what}\n  why: {one.why}\n  do:  {one.do}"))
        print("healthy" if healthy else "not healthy")
    return exits.OK if healthy else exits.FAILED


def examine(db: str) -> Iterator[Finding]:
    """All findings on a database. What can't be opened is one."""
    from dq.cli.doctor import contents, machine, owner, work
    from dq.cli.doctor.finding import ERROR, Finding
    from dq.errors import StoreError
    from dq.store.reader import Reader

    if not os.path.isdir(os.path.dirname(db)):
        yield Finding(
            ERROR, "place", f"there is no folder {os.path.dirname(db)}", "nothing can lie there", "correct the path"
        )
        return
    who, now = owner.find(db), int(time.time() * 1_000_000)
    yield from machine.check(db)
    try:
        with Reader.open(db) as reader:
            damaged = False
            for finding in contents.check(db, reader, now):
                damaged = damaged or finding.check == contents.INTEGRITY
                yield finding
            yield from owner.check(db, who)
            if not damaged:  # else what the rows say is anybody's guess
                yield from work.check(shlex.quote(db), reader, who, now)
    except StoreError as error:
        yield Finding(ERROR, type(error).__name__, str(error), "nothing can be read, or not all of it", "as it says")
