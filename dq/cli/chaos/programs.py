"""Random programs: a small language of what a workflow can do, the generator, and the oracle that knows the result.

A program is a list of chapters (`dq.checkpoint` lies between two), a chapter is a term, and a term is a list: its word and
what belongs to it. All of it is JSON. A term takes a number and makes a number; `expect` says which, by arithmetic alone.

    ["step"]                 one step                     ["sleep", ms]            a timer
    ["seq", [term, ...]]     one after the other          ["late", ms]             a signal that never comes
    ["map", n]               a fan-out                    ["signal"]               a signal of a client's
    ["each", n]              results as they come         ["self"], ["tell"]       of the run itself, of a step
    ["par", [term, ...]]     side by side                 ["retry", k]             fails k times, then does not
    ["child", how, program]  a child run                  ["fail", k]              fails k times, that is all
    ["undo", n]              a child that fails and       ["crash", k]             kills its own worker k times
                             undoes n steps               ["slow"]                 takes longer than its timeout
    ["drop", what]           cancels what it began        ["delay", ms], ["queued", n], ["big", KiB]
    ["draw"], ["publish"]    chance and time; a note      ["write"], ["order"]     effects: a row, another step
    ["cursor", n]            reports its progress         ["io", n]                side by side in a pool of threads
    ["dedup"]                one step, asked for twice    ["deadline"]             a child that takes too long, and undoes
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

Term = list[Any]
Program = list[Term]

PRIME = 1_000_003
WIDE = 6  # items of a fan-out, most often
VERY_WIDE = 60
DROPS = ("step", "queued", "child", "timer", "delayed")
_LEAVES = {
    "step": 6, "map": 3, "each": 3, "sleep": 2, "late": 1, "signal": 2, "self": 1, "tell": 2, "retry": 3, "fail": 2,
    "crash": 1, "slow": 1, "undo": 2, "drop": 3, "delay": 2, "queued": 2, "big": 1, "draw": 2, "publish": 1, "write": 3,
    "order": 2, "cursor": 1, "io": 2, "dedup": 2, "deadline": 1,
}  # fmt: skip


def mix(value: int, at: str, number: int = 0) -> int:
    """What the step at a place of the program makes of a number.

    >>> mix(1, "r.0"), mix(1, "r.1")
    (886296, 150311)
    """
    return (value * 31 + crc32(f"{at}/{number}".encode())) % PRIME


def generate(rng: random.Random) -> tuple[str, Program]:
    """Draws a program, and whether a `def` or an `async def` workflow plays it."""
    how = rng.choice(["def", "async"])
    return how, _program(rng, rng.randint(1, 4))


def _program(rng: random.Random, depth: int) -> Program:
    return [_term(rng, depth) for _ in range(1 if rng.random() < 0.75 else rng.randint(2, 3))]


def _term(rng: random.Random, depth: int) -> Term:
    word = rng.choice(["seq", "seq", "par", "child", "leaf"]) if depth else "leaf"
    if word == "seq":
        return ["seq", [_term(rng, depth - 1) for _ in range(rng.randint(1, 4))]]
    if word == "par":
        return ["par", [_term(rng, depth - 1) for _ in range(rng.randint(2, 3))]]
    if word == "child":
        return ["child", rng.choice(["def", "async"]), _program(rng, depth - 1)]
    return _leaf(rng)


def _leaf(rng: random.Random) -> Term:
    word = rng.choices([*_LEAVES], [*_LEAVES.values()])[0]
    match word:
        case "map" | "each" | "io" if rng.random() < 0.1:
            return [word, VERY_WIDE]
        case "map" | "each" | "io" | "queued" | "cursor":
            return [word, rng.randint(1, WIDE)]
        case "undo" | "retry" | "fail":
            return [word, rng.randint(1, 3)]
        case "crash":
            return [word, rng.randint(1, 2)]
        case "sleep" | "late" | "delay":
            return [word, rng.choice([1, 5, 20, 80])]
        case "drop":
            return [word, rng.choice(DROPS)]
        case "big":
            return [word, rng.choice([4, 300])]
        case _:
            return [word]


@dataclass
class Expected:
    """What a run of a program leads to.

    Attributes:
        value: Its result.
        signals: The names and payloads of signals that a client must send.
        must: What happened at each of these places is one step, which has completed: place -> bodies of it.
        fails: The same for steps that have failed in the end.
        may: Places of what was cancelled: their steps may have ended anyhow, or may not have been asked for.
        rows: What effects have written, once each.
    """

    value: int = 0
    signals: list[tuple[str, int]] = field(default_factory=list)
    must: list[str] = field(default_factory=list)
    fails: list[str] = field(default_factory=list)
    may: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)


def expect(run: str, program: Program, value: int = 1) -> Expected:
    """What the run of that id leads to, by arithmetic alone."""
    found = Expected()
    found.value = _chapters(found, program, value, run, child=False)
    return found


def _chapters(found: Expected, program: Program, value: int, at: str, *, child: bool) -> int:
    for number, term in enumerate(program):
        value = _walk(found, term, value, f"{at}/{number}", child=child)
    return value


def _walk(found: Expected, term: Term, value: int, at: str, *, child: bool) -> int:
    word, *rest = term
    match word:
        case "seq":
            for number, part in enumerate(rest[0]):
                value = _walk(found, part, value, f"{at}.{number}", child=child)
            return value
        case "par":
            # Played by child runs or by tasks, so a client's signals don't reach all of them: see `needs_own_signal`.
            parts = [_walk(found, part, value, f"{at}.{number}", child=True) for number, part in enumerate(rest[0])]
            return sum(parts) % PRIME
        case "child":
            return _chapters(found, rest[1], value, f"{at}c", child=True)
        case "signal" if not child:
            payload = mix(0, at)
            found.signals.append((at, payload))
            return (value + payload) % PRIME
        case _:
            return _leaf_value(found, term, value, at)


def _leaf_value(found: Expected, term: Term, value: int, at: str) -> int:
    word, *rest = term
    match word:
        case "step" | "retry" | "crash" | "delay" | "draw" | "big" | "cursor" | "dedup":
            found.must.append(at)
            return mix(value, at)
        case "map" | "each" | "io" | "queued":
            found.must += [f"{at}#{number}" for number in range(rest[0])]
            return sum(mix(value, at, number) for number in range(rest[0])) % PRIME
        case "fail" | "slow":
            found.fails.append(at)
            return mix(value, at)
        case "deadline":
            found.must.append(f"{at}u")
            return mix(value, at)
        case "undo":
            found.must += [f"{at}#{number}" for number in range(rest[0])]
            found.must += [f"{at}#{number}u" for number in range(rest[0])]
            return mix(value, at, rest[0])
        case "signal" | "self":
            return (value + mix(0, at)) % PRIME
        case "tell":
            found.must.append(at)
            return (value + mix(0, at)) % PRIME
        case "write":
            found.must.append(at)
            found.rows.append(at)
            return mix(value, at)
        case "order":
            found.must += [at, f"{at}o"]
            found.rows.append(f"{at}o")
            return mix(value, at)
        case "drop":
            found.may += [f"{at}#{number}" for number in range(WIDE)]
            found.must += [f"{at}u"] if rest[0] == "child" else []
            return value
        case "sleep" | "late" | "publish":
            return mix(value, at)
        case _:
            raise ValueError(f"{word!r} is no word of the language")
