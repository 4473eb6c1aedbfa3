"""The record of long sweeps: how often each fault was raised, from which seeds, at which commit, and what was found.

`make soak` names the record in DQ_SWEEPS; without it nothing is kept. Each sweep that a test tells of is one line of the
record, replaced when the same test tells of it again, and docs/reliability.md shows the sums.

    python -m tests.sweeps   # writes the table into docs/reliability.md
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- sweeps -->\n", "<!-- /sweeps -->\n"


def tally(sweep: str, count: int, *, seeds: str, began: float, **findings: int) -> None:
    """Keeps what a sweep did; call it before asserting that nothing was found.

    sweep is a title of the table, count how often its fault was raised, seeds what repeats it, began the value of
    time.monotonic() when it started, findings what must be 0: lost, repeated, orphans, wrong ...
    """
    if not (record := os.environ.get("DQ_SWEEPS")):
        return
    test = os.environ["PYTEST_CURRENT_TEST"].rsplit(" ", 1)[0]
    entry = {
        "sweep": sweep,
        "test": test,
        "count": count,
        "seeds": seeds,
        "findings": findings,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(time.monotonic() - began),
    }
    with open(record, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        kept = [line for line in map(json.loads, file) if (line["sweep"], line["test"]) != (sweep, test)]
        lines = sorted([*kept, entry], key=lambda line: (line["sweep"], line["test"]))
        file.truncate(0)
        file.writelines(json.dumps(line) + "\n" for line in lines)


def table(record: Path = RECORD) -> str:
    """The record as a table of the docs: one row for each sweep, its tests added up."""
    sweeps: dict[str, list[dict[str, Any]]] = {}
    for line in record.read_text().splitlines():
        entry = json.loads(line)
        sweeps.setdefault(entry["sweep"], []).append(entry)
    rows = ["| fault | how often | found | seeds | commit | minutes |", "| --- | ---: | --- | --- | --- | ---: |"]
    for sweep, entries in sweeps.items():
        found: Counter[str] = Counter()
        for entry in entries:
            found.update(entry["findings"])
        rows.append(
            f"| {sweep} | {sum(entry['count'] for entry in entries):,} "
            f"| {', '.join(f'{number} {what}' for what, number in sorted(found.items()))} "
            f"| {_some(sorted({entry['seeds'] for entry in entries}))} "
            f"| {', '.join(sorted({entry['commit'] for entry in entries}))} "
            f"| {sum(entry['seconds'] for entry in entries) / 60:.1f} |"
        )
    return "".join(f"{row}\n" for row in rows)


def _some(seeds: list[str]) -> str:
    """The record has them all."""
    return ", ".join(seeds) if len(seeds) <= 3 else f"{len(seeds)} ranges"


def shown(page: str) -> str:
    """The table as a page has it."""
    return page.split(_BEGIN, 1)[1].split(_END, 1)[0]


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"


def main() -> None:
    page = PAGE.read_text()
    PAGE.write_text(page.replace(_BEGIN + shown(page) + _END, _BEGIN + table() + _END))


if __name__ == "__main__":
    main()
