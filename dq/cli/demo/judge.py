"""The demo's judge: what the file holds, against what the log says happened.

    python judge.py DATABASE RUN LOG

It runs when the engine has stopped, uses the standard library alone, opens the file read-only, and shares no code with
what it judges. It prints one JSON object and ends with 0 when nothing is lost, repeated or odd:

    steps        results of steps of the run that the file holds
    retried      bodies that began, and were cut off before their result was on record
    repeated     bodies that began after the recorded completion of their step
    lost         results that somebody was told of and that the file does not hold as told
    kills        processes killed, by kind
    in_body      workers that were killed between the begin and the end of a body
    digest       of the run's result in the file
    problems     one line for each thing that is not as promised
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import pickle
import sqlite3
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

_RUN = "SELECT id, state, payload FROM dq_run WHERE name = ?"
_STEPS = """
    SELECT s.id, r.state, r.epoch, r.payload
    FROM dq_step AS s LEFT JOIN dq_result AS r ON r.step = s.id
    WHERE s.run = ?
"""


DAMAGED = "damaged"  # stands for the digest of bytes that are not what was recorded


class Begin(NamedTuple):
    epoch: int
    ns: int


class Recorded(NamedTuple):
    """What the file holds of a step; state is None where it has no result."""

    state: str | None
    epoch: int
    digest: str


_NOTHING = Recorded(None, 0, "")


class Log:
    """What happened, as those who did it wrote it down."""

    def __init__(self, path: str) -> None:
        self.begins: dict[int, list[Begin]] = {}  # step -> its bodies
        self.ends: dict[tuple[int, int], tuple[int, str]] = {}  # (step, epoch) -> when, and the result's digest
        self.labels: dict[str, set[int]] = {}  # label -> steps that were begun under it
        self.told: list[tuple[str, str, int]] = []  # label, digest, when
        self.kills: Counter[str] = Counter()
        self.in_body = 0
        self.problems: list[str] = []
        self._busy: set[int] = set()  # pids between a begin and its end
        for number, line in enumerate(Path(path).read_text().splitlines(), 1):
            try:
                self._take(*json.loads(line))
            except (ValueError, TypeError, LookupError):
                self.problems.append(f"line {number} of the log can't be read: {line[:80]}")

    def _take(self, what: str, *rest: Any) -> None:
        if what == "begin":
            step, _attempt, epoch, pid, ns, label = rest
            self.begins.setdefault(step, []).append(Begin(epoch, ns))
            self.labels.setdefault(label, set()).add(step)
            self._busy.add(pid)
        elif what == "end":
            step, _attempt, epoch, pid, ns, digest = rest
            self.ends[step, epoch] = (ns, digest)
            self._busy.discard(pid)
        elif what == "told":
            label, digest, _pid, ns = rest
            self.told.append((label, digest, ns))
        elif what == "killed":
            kind, pid, _ns = rest
            self.kills[kind] += 1
            self.in_body += kind == "worker" and pid in self._busy
        else:
            raise ValueError(what)


class Plain(pickle.Unpickler):
    """Reads results that are made of numbers, texts and containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a result of the demo")


def content(payload: bytes, blobs: Path) -> str:
    """The digest of a payload's value. ValueError where its bytes are not what was recorded."""
    tag, crc, body = payload[:1], int.from_bytes(payload[1:5], "little"), payload[5:]
    if zlib.crc32(body) != crc:
        raise ValueError("its checksum differs")
    if tag == b"f":
        body = _side_file(body, blobs)
    elif tag != b"p":
        raise ValueError(f"the tag {tag!r} is not that of a result")
    value = Plain(io.BytesIO(body)).load()
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _side_file(body: bytes, blobs: Path) -> bytes:
    """The pickle in a large result's file, which must have the size and the checksum on record."""
    name, size, crc = _unpack(body)
    found = next(blobs.glob(f"*/{name}"), None)
    if found is None:
        raise ValueError(f"the side file {name} is gone")
    held = found.read_bytes()
    if len(held) != size or zlib.crc32(held) != crc:
        raise ValueError(f"the side file {name} is not as recorded")
    parts, length = int.from_bytes(held[4:8], "little"), int.from_bytes(held[8:16], "little")
    start = -(-(8 + 8 * parts) // 64) * 64  # the first part lies behind the head, at a multiple of 64
    return held[start : start + length]


def _unpack(body: bytes) -> tuple[str, int, int]:
    """The little of msgpack that a reference to a side file is made of: a text and two numbers."""
    start, length = (2, body[1] & 0x1F) if body[1] & 0xE0 == 0xA0 else (3, body[2])
    name, at = body[start : start + length].decode(), start + length
    numbers: list[int] = []
    while at < len(body):
        width = 1 << body[at] - 0xCC if 0xCC <= body[at] <= 0xCF else 0
        numbers.append(int.from_bytes(body[at + 1 : at + 1 + width], "big") if width else body[at])
        at += 1 + width
    size, crc = numbers
    return name, size, crc


def read(database: str, run: str) -> tuple[str, str, dict[int, Recorded], list[str]]:
    """The run's state and digest, its steps, and what is wrong with them."""
    problems: list[str] = []
    blobs = Path(database + ".blobs")

    def digest(what: str, payload: bytes) -> str:
        try:
            return content(payload, blobs)
        except (ValueError, LookupError, EOFError, pickle.UnpicklingError) as error:
            problems.append(f"the result of {what} is damaged: {error}")
            return DAMAGED

    file = sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True)
    try:
        found = file.execute(_RUN, (run,)).fetchone()
        if found is None:
            return "missing", "", {}, [f"the file has no run {run}"]
        id, state, payload = found
        result = digest("the run", payload) if state == "completed" else ""
        steps: dict[int, Recorded] = {}
        for step, ending, epoch, bytes in file.execute(_STEPS, (id,)):
            value = digest(f"step {step}", bytes) if ending == "completed" else ""
            steps[step] = Recorded(ending, epoch or 0, value)
        if file.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
            problems.append("the file does not pass SQLite's integrity check")
    finally:
        file.close()
    return state, result, steps, problems


def count_repeats(log: Log, steps: dict[int, Recorded]) -> tuple[int, int]:
    """How many bodies began after their step's recorded completion, and how many were cut off before it.

    Claims are numbered upwards, so a body under a later claim than the recorded one is a repeat, and so is any that
    began when the recorded one had ended. Under the recorded claim itself one body is right, a second is a repeat.
    """
    repeated = retried = 0
    for step, begins in log.begins.items():
        record = steps.get(step, _NOTHING)
        ended = log.ends.get((step, record.epoch), (None, ""))[0]
        right = 0
        for begin in begins:
            if record.state is None:
                retried += 1
            elif begin.epoch > record.epoch or (ended is not None and begin.ns > ended):
                repeated += 1
            elif begin.epoch == record.epoch:
                right += 1
            else:
                retried += 1
        repeated += max(0, right - 1)
    repeated += sum(len(begun) - 1 for begun in log.labels.values())  # one piece of work under two steps
    return repeated, retried


def find_losses(log: Log, steps: dict[int, Recorded], result: str) -> list[str]:
    """What somebody was told and the file does not hold as told, once for each."""
    losses: dict[str, str] = {}
    for label, digest, _ns in log.told:
        found = (steps.get(step, _NOTHING) for step in log.labels.get(label, ()))
        held = {result} if label == "run" else {record.digest for record in found}
        if digest not in held:
            losses[label] = f"the result of {label} was told and is not in the file as told"
    return list(losses.values())


def find_oddities(log: Log, state: str, steps: dict[int, Recorded]) -> list[str]:
    """What is neither lost nor repeated and yet not as promised."""
    odd: list[str] = []
    if state != "completed":
        odd.append(f"the run is {state}")
    for step, record in steps.items():
        end = log.ends.get((step, record.epoch))
        if record.state != "completed":
            odd.append(f"step {step} is {record.state or 'without a result'}")
        elif end is None:
            odd.append(f"step {step} has a result, and no body of that claim came to its end")
        elif record.digest not in (end[1], DAMAGED):
            odd.append(f"step {step} has another result than its body had")
    for step, begins in log.begins.items():
        if step not in steps:
            odd.append(f"step {step} was begun and is not in the file")
        in_order = sorted(begins, key=lambda begin: begin.ns)
        for first, second in itertools.pairwise(in_order):
            ended = log.ends.get((step, first.epoch))
            if ended is not None and ended[0] > second.ns:
                odd.append(f"step {step} ran twice at once")
    return odd


def judge(database: str, run: str, log_path: str) -> dict[str, Any]:
    """The verdict on one run."""
    log = Log(log_path)
    state, result, steps, damage = read(database, run)
    repeated, retried = count_repeats(log, steps)
    losses = find_losses(log, steps, result)
    problems = log.problems + damage + losses + find_oddities(log, state, steps)
    if repeated:
        problems.append(f"{repeated} bodies began after the recorded completion of their step")
    return {
        "steps": sum(record.state is not None for record in steps.values()),
        "retried": retried,
        "repeated": repeated,
        "lost": len(losses),
        "kills": dict(log.kills),
        "in_body": log.in_body,
        "digest": result,
        "problems": problems[:20],
    }


if __name__ == "__main__":
    verdict = judge(*sys.argv[1:4])
    print(json.dumps(verdict))
    sys.exit(1 if verdict["problems"] else 0)
