"""`dq executors`."""

from __future__ import annotations

import json

import click

from dq.cli.options import json_option
from dq.cli.table import render


@click.command("executors")
@json_option
def command(as_json: bool) -> None:
    """List the executors that are installed, what they can do, and why one does not load."""
    from dq.executor.discovery import available

    found = available()
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=1))
        return
    rows = [[one.name, one.target, " ".join(one.capabilities), one.error] for one in found]
    print(render(["name", "class", "can", "error"], rows))
