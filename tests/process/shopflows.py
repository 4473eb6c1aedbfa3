"""The flows that Persistasaurus shows, and those that it trips over, written with dq."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import tenacity

import dq
from tests.process.flows import begins, held, note, plain


@dq.step
def say(folder: str, name: str, count: int) -> int:
    note(folder, "begin", f"say-{count}", name)
    return count


@dq.workflow
def hello(folder: str, name: str) -> int:
    """The first example: five steps in a loop."""
    return sum(say(folder, name, count) for count in range(5))


@dq.step
def create_user(folder: str, name: str) -> dict[str, object]:
    note(folder, "begin", "create", name)
    return {"id": 7, "name": name}


@dq.step
def send_mail(folder: str, user: dict[str, object]) -> None:
    note(folder, "begin", "mail", user["id"])


@dq.step(delay=1.0)
def remind(folder: str, user: dict[str, object]) -> str:
    note(folder, "begin", "remind", user["id"])
    return "reminded"


@dq.workflow
def sign_up(folder: str, name: str) -> tuple[object, object]:
    """Creates a user, sends a mail, and waits until somebody has confirmed the address."""
    user = create_user(folder, name)
    send_mail(folder, user)
    return user["id"], dq.wait_signal("confirmed")


@dq.workflow
def reminds(folder: str) -> str:
    return remind(folder, create_user(folder, "Bob"))


@dq.step
def breaks(folder: str) -> None:
    note(folder, "begin", "breaks", os.getpid())
    raise ValueError("there is a bug in this step")


@dq.workflow
def buggy(folder: str) -> None:
    breaks(folder)


@dq.step(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())
def flaky(folder: str) -> list[str]:
    note(folder, "begin", "flaky", dq.current().idempotency_key)
    if begins(folder, "flaky") < 3:
        raise OSError("not now")
    return [line.split()[2] for line in Path(folder, "log").read_text().splitlines() if " flaky " in line]


@dq.workflow
def retries(folder: str) -> list[str]:
    return flaky(folder)


@dq.step
def outer(folder: str, value: int) -> int:
    note(folder, "begin", "outer", value)
    return plain(folder, "inner", value) + plain(folder, "inner", value)


@dq.workflow
def nested(folder: str) -> int:
    return held(folder, "held", outer(folder, 1)) + outer(folder, 2)


@dq.workflow
def side_by_side(folder: str) -> list[int]:
    left, right = held.submit(folder, "left", 1), held.submit(folder, "right", 2)
    return dq.gather(left, right)


@dq.workflow
async def two_reviews() -> list[object]:
    return list(await asyncio.gather(dq.wait_signal("legal"), dq.wait_signal("finance")))


@dq.workflow
def pays(folder: str) -> int:
    """What it pays stands in a file, as if in its code, which somebody edits."""
    amount = int(Path(folder, "amount").read_text())
    return plain(folder, "after", held(folder, "pay", amount))
