"""The file itself: whether it is whole, and whether its side files are."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator

from dq.cli.doctor.finding import ERROR, NOTE, WARNING, Finding
from dq.cli.sizes import size
from dq.crew.delays import FAR
from dq.crew.janitor import listing
from dq.errors import DamagedPayload
from dq.executor import blobs
from dq.executor.blobs import Reference
from dq.model.payload import unseal
from dq.store.migrate import PAGE_SIZE
from dq.store.reader import Reader

LONG_LOG = 256 << 20  # bytes
FUTURE = 60_000_000  # microseconds
DAY = 86_400_000_000  # the same
YEAR = 365 * DAY  # the same
SHOWN = 5  # examples in a finding
INTEGRITY = "integrity"


def check(db: str, reader: Reader, now: int) -> Iterator[Finding]:
    findings, quoted = reader.findings(SHOWN), shlex.quote(db)
    if findings:
        yield Finding(
            ERROR, INTEGRITY, "; ".join(findings), "the file is damaged, and what is in these pages may be lost",
            f"copy {quoted} and {quoted}-wal to a safe place; then go back to a backup, or save what can be read: "
            f"sqlite3 {quoted} .recover | sqlite3 rescued.db",
        )  # fmt: skip
        return
    if reader.page_size() != PAGE_SIZE:
        yield Finding(
            NOTE, "page size", f"pages have {reader.page_size()} bytes", f"a sync costs by its pages, and {PAGE_SIZE} are quickest",
            "nothing; a new file has the right one",
        )  # fmt: skip
    yield from _log(db)
    yield from _clock(db, reader, now)
    yield from _side_files(db, reader)


def _log(db: str) -> Iterator[Finding]:
    length = os.path.getsize(f"{db}-wal") if os.path.exists(f"{db}-wal") else 0
    if length > LONG_LOG:
        yield Finding(
            WARNING, "log", f"the write-ahead log has {size(length)}",
            "somebody reads in one long transaction, so that the log can't begin anew, and every reader is slower",
            f"find who has it open (`fuser -v {shlex.quote(db)}-wal`) and end that transaction",
        )  # fmt: skip


def _clock(db: str, reader: Reader, now: int) -> Iterator[Finding]:
    ahead = reader.archive().latest_end() - now
    if ahead > FUTURE:
        yield Finding(
            WARNING, "clock", f"something on record ended {ahead / 6e7:.0f} minutes in the future",
            "the system's clock was set back, or was wrong; timers, schedules and `dq gc` go by it",
            "set the clock right (`timedatectl`)",
        )  # fmt: skip
    ahead = reader.archive().latest_begin() - now
    if ahead > DAY:
        yield Finding(
            WARNING, "clock", f"something was put on record {ahead / DAY:.0f} days in the future",
            "the system's clock was wrong then, or is now; what was to be done after a while is due that much too late",
            "set the clock right (`timedatectl`); dq ls tells the times, and `dq retry STEP` lets a step begin now",
        )  # fmt: skip
    yield from _far_ahead(db, reader, now)


def _far_ahead(db: str, reader: Reader, now: int) -> Iterator[Finding]:
    """What waits for so long that nobody may have meant it."""
    quoted = shlex.quote(db)
    count, due, step = reader.archive().distant_steps(now + YEAR, FAR // 2)
    if count:
        yield Finding(
            NOTE, "due times", f"{count} steps, such as {step}, are due in more than a year, the last one in {(due - now) / DAY:.0f} days",
            "timers, delays and retries go by the system's clock: it may have been wrong when they were asked for",
            f"nothing where that is meant; else `dq retry {step} --db {quoted}` lets a delayed step begin now, and "
            "`dq cancel RUN` ends a run whose timer it is",
        )  # fmt: skip
    late = [line for line in reader.schedules() if not line.paused and line.next_at > now + YEAR]
    if late:
        yield Finding(
            NOTE, "schedules", f"{len(late)} schedules, such as {late[0].id}, are due in more than a year",
            "a time that has fired is never fired again, so where the clock was set back they wait for it to come there",
            f"nothing where that is meant; else take it away (`dq schedules delete {shlex.quote(late[0].id)} --db {quoted}`) and "
            "book it again: the times that have fired stay fired",
        )  # fmt: skip


def _side_files(db: str, reader: Reader) -> Iterator[Finding]:
    folder = db + ".blobs"
    files = {file.name: file for file in listing(folder)}
    wanted: dict[str, Reference] = {}
    unread = 0
    for payloads in reader.archive().payloads_aside():
        for payload in payloads:
            try:
                found = blobs.reference(bytes(unseal(payload)[1]))
                wanted[found.name] = found
            except DamagedPayload:
                unread += 1
    if unread:
        yield Finding(
            ERROR, "payloads", f"{unread} payloads do not match their checksum", "what they name can't be found",
            "go back to a backup, or fork the runs that need them from an earlier step",
        )  # fmt: skip
    # One that was tidied up between the two looks is not missing, so it is looked for once more.
    missing = [name for name in wanted if name not in files and not os.path.exists(blobs.path_of(folder, name))]
    broken = [name for name, file in files.items() if name in wanted and file.size != wanted[name].size]
    for what, names in (("are missing", _still(missing, reader)), ("have another size than on record", broken)):
        if names:
            yield Finding(
                ERROR, "side files", f"{len(names)} side files {what}, such as {', '.join(names[:SHOWN])}",
                "whoever needs one of these values is told that it is damaged", "bring them back from a backup of the folder",
            )  # fmt: skip
    loose = [file for name, file in files.items() if name not in wanted and file.is_due(time.time())]
    if loose:
        yield Finding(
            NOTE, "side files", f"nothing refers to {len(loose)} side files, of {size(sum(file.size for file in loose))}",
            "attempts that came to nothing have left them", f"dq gc --older-than 30d --db {shlex.quote(db)}",
        )  # fmt: skip


def _still(missing: list[str], reader: Reader) -> list[str]:
    """Those that rows refer to now, too."""
    if not missing:
        return []
    named: set[str] = set()
    for payloads in reader.archive().payloads_aside():
        for payload in payloads:
            try:
                named.add(blobs.reference(bytes(unseal(payload)[1])).name)
            except DamagedPayload:
                continue
    return [name for name in missing if name in named]
