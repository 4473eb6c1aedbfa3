"""Small groups, as a supervisor would make them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from dq.store.group import AttemptRow, ContextRow, FunctionRow, Group, RunChange, RunRow
from dq.store.store import Store

NOW = 1_764_000_000_000_000
ARGS = b"p0000arguments"
RESULT = b"p0000result"


def epoch(store: Store, counter: int) -> int:
    """The fencing token of a claim of this store's boot."""
    return store._epoch << 40 | counter


def functions() -> Group:
    """A context, a step (1) and a workflow (2)."""
    return Group(
        contexts=[ContextRow(1, "/usr/bin/python3", "flow.py", "/home/me", '["/home/me"]')],
        functions=[
            FunctionRow(1, 1, "flow:render", "step", b"s" * 16, None, "", 3, NOW),
            FunctionRow(2, 1, "flow:movie", "workflow", b"w" * 16, b"code", "", 3, NOW),
        ],
    )


def batch(first: int, last: int) -> Group:
    """Steps submitted alone."""
    return Group(
        lease_to=last + 1,
        batches=[(first, last)],
        steps=[(id, 1, ARGS, NOW) for id in range(first, last + 1)],
    )


def claim(token: int, ids: Iterable[int], attempt: int = 1, pid: int = 77) -> Group:
    return Group(claims=[(token, 0, pid, json.dumps([[id, attempt] for id in ids]), NOW)])


def results(
    token: int, ids: Iterable[int], state: str = "completed", seq: int | None = None, attempt: int = 1
) -> Group:
    """Results of a whole claim, which they close."""
    return Group(
        results=[(id, seq, state, attempt, token, 77, NOW + 5, NOW + 7, RESULT) for id in ids],
        closed_claims=[(token,)] if token else [],
    )


def run(id: int, name: str) -> Group:
    return Group(lease_to=id + 1, runs=[RunRow(id, name, 2, ARGS, b"f" * 16, NOW)])


def run_ends(id: int, state: str = "completed", expected: str = "running") -> Group:
    ends = state not in {"running", "blocked"}
    return Group(
        run_changes=[
            RunChange(state, NOW + 9 if ends else None, RESULT if ends else None, None if ends else "why", id, expected)
        ]
    )


def flow_steps(run_id: int, ids: Iterable[int]) -> Group:
    rows = [(id, run_id, 1, "0", n, b"g" * 16, ARGS, NOW) for n, id in enumerate(ids)]
    return Group(lease_to=max(row[0] for row in rows) + 1, flow_steps=rows)


def crash(step: int, token: int, attempt: int = 1, charged: int = 1) -> Group:
    return Group(
        attempts=[AttemptRow(step, attempt, token, "crashed", 77, charged, "killed by signal 9", NOW + 6)],
        closed_claims=[(token,)],
    )
