"""What is known of something that ended badly, as a sheet to read."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dq.cli.table import iso, local, render, span

if TYPE_CHECKING:
    from dq.client.letters import DeadLetter
    from dq.store.reader import AttemptLine

_SIGNAL = re.compile(r"was ended by (SIG\w+|signal \d+)")
_CODE = re.compile(r"exited with code (\d+)")
_MEMORY = re.compile(r"peak memory (\d+) MiB")
_STACK = "its last stack:\n"


def attempts(db: str, letter: DeadLetter) -> list[dict[str, Any]]:
    """All attempts of a step, or the deaths of hosts in a run, oldest first, with what their causes tell."""
    from dq.store.reader import Reader

    with Reader.open(db) as reader:
        if letter.is_run:
            run = reader.run(letter.run)
            return [attempt(one) for one in reader.attempts(run.id)] if run is not None else []
        return [attempt(one) for one in reader.attempts(int(letter.id))]


def attempt(one: AttemptLine) -> dict[str, Any]:
    """An attempt in words for programs: what is not known is None."""
    cause = one.cause or ""
    told, _, stack = cause.partition(_STACK)
    ended_by, code, memory = _SIGNAL.search(told), _CODE.search(told), _MEMORY.search(told)
    return {
        "attempt": one.attempt,
        "outcome": one.outcome,
        "pid": one.pid,
        "charged": bool(one.charged),
        "cause": cause or None,
        "signal": ended_by[1] if ended_by else None,
        "exit_code": int(code[1]) if code else None,
        "peak_mib": int(memory[1]) if memory else None,
        "out_of_memory": "for want of memory" in told,
        "stack": stack or None,
        "began_at": iso(one.began_at),
        "ended_at": iso(one.ended_at),
    }


def sheet(letter: DeadLetter, tried: list[dict[str, Any]]) -> str:
    """The evidence as text."""
    created, ended = (int(at.timestamp() * 1_000_000) for at in (letter.created_at, letter.ended_at))
    kind = "run" if letter.is_run else "step"
    lines = [f"{kind:<10} {letter.id} {letter.name}"]
    if not letter.is_run:
        lines.append(f"run        {letter.run or '(submitted alone)'}")
    dealt = f", as {kind} number {letter.successor}" if letter.successor is not None else ""
    lines.append(f"state      {letter.ended}; the letter is {letter.state}{dealt}")
    lines.append(f"began      {local(created)}, ended {local(ended)} ({span(created, ended)})")
    lines.append(f"cause      {letter.fingerprint}")
    if tried:
        heads = ["attempt", "outcome", "pid", "ended by", "peak", "ended"]
        lines.append("\n" + render(heads, [_row(one) for one in tried]))
    lines += [f"\nattempt {one['attempt']}: {one['cause']}" for one in tried if one["cause"]]
    lines.append("\n" + (letter.traceback.rstrip() or f"{letter.type}: {letter.text}"))
    return "\n".join(lines)


def _row(one: dict[str, Any]) -> list[object]:
    how = one["signal"] or (f"code {one['exit_code']}" if one["exit_code"] is not None else "")
    how += " (out of memory)" if one["out_of_memory"] else ""
    peak = f"{one['peak_mib']} MiB" if one["peak_mib"] is not None else ""
    return [one["attempt"], one["outcome"] or "running", one["pid"], how, peak, _local(one["ended_at"])]


def _local(told: str | None) -> str:
    return local(int(datetime.fromisoformat(told).timestamp() * 1_000_000)) if told else ""
