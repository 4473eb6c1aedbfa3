"""The course of a simulated history: chance acts for a while, then everybody is let finish."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.simulation.judge import Wrong
from tests.simulation.machine import SECOND, START
from tests.simulation.world import ACTS, DRAIN, World

PLACES = ("before commit", "after commit", "before sync", "after sync")
SHARED = Path("/dev/shm")


class History(NamedTuple):
    """What a number has led to."""

    number: int
    digest: str
    error: BaseException | None
    sometimes: Counter[str]
    bodies: int
    trace: list[str]


def play(number: int, *, keep: bool = False) -> History:
    """Plays one history to its end. `keep` has its trace written down; else there is its digest only."""
    error: BaseException | None = None
    with tempfile.TemporaryDirectory(dir=SHARED if SHARED.is_dir() else None) as folder:
        world = World(number, Path(folder))
        world.keep = keep
        try:
            for _ in range(ACTS):
                act(world)
            drain(world)
            world.supervisor.committer.settle()
            world.judge.at_the_end()
        except (Exception, Wrong) as found:
            error = found
        world.close()
    return History(number, world.digest.hexdigest(), error, world.sometimes, world.judge.bodies, world.lines)


def act(world: World) -> None:
    """The next thing, by chance."""
    chance = world.chance
    acts: list[tuple[int, Callable[[World], None]]] = [
        (30, lambda world: world.turn()), (12, _client), (35, _member), (12, _flow), (6, _time), (3, _kill), (2, _pause),
        (1, _doom), (1, _wall), (1, _template), (1, _hang_up),
    ]  # fmt: skip
    chosen = chance.choices([what for _, what in acts], [weight for weight, _ in acts])[0]
    chosen(world)


def _client(world: World) -> None:
    client = world.chance.choice(world.clients)
    client.acts()
    if world.chance.random() < 0.5:
        client.wants()


def _member(world: World) -> None:
    living = world.machine.living()
    if living:
        world.chance.choice(living).acts()


def _flow(world: World) -> None:
    """Some bytes leave somebody's pipe, perhaps half a frame."""
    members = [*world.machine.living("worker"), *world.machine.living("host")]
    if members:
        member: Any = world.chance.choice(members)
        if member.flows(world.chance.choice([1, 3, 7, 30, 1000])) and world.chance.random() < 0.1:
            world.sometimes["died with its last words in the pipe"] += not member.main.out
            member.dies()


def _time(world: World) -> None:
    world.clock.passes(world.chance.choice([0.001, 0.006, 0.1, 0.5, 1.1, 2.0]))


def _kill(world: World) -> None:
    victims = [*world.machine.living("worker"), *world.machine.living("host")[: world.chance.randint(0, 1)]]
    condemned = [one for one in victims if one.condemned]
    if victims:
        victim = world.chance.choice(condemned or victims)
        world.trace("dies", victim.pid)
        victim.dies()


def _pause(world: World) -> None:
    workers = world.machine.living("worker")
    if workers:
        worker = world.chance.choice(workers)
        if worker.paused:
            world.sometimes["a stopped worker came back"] += 1
            world.sometimes["a worker went on after its kill was sent"] += worker.condemned
        worker.paused = not worker.paused


def _doom(world: World) -> None:
    world.doom = world.chance.choice(PLACES)


def _wall(world: World) -> None:
    world.clock.wall += world.chance.choice([-3600, -5, 5, 3600]) * 1_000_000
    world.sometimes["the wall clock was set"] += 1


def _template(world: World) -> None:
    for template in world.machine.living("template"):
        world.sometimes["a template died"] += 1
        template.dies()


def _hang_up(world: World) -> None:
    world.chance.choice(world.clients).leaves()
    world.sometimes["a client hung up"] += 1


def drain(world: World) -> None:
    """No more faults: what is unfinished must come to its end."""
    world.draining, world.doom = True, ""
    # Somebody sets the clock right, and past all that was to be done while it was wrong.
    world.clock.wall = max(START + world.clock.steady - 1000 * SECOND, *world.dues.values(), 0)
    for _ in range(DRAIN):
        moved = False
        for client in world.clients:
            moved |= client.acts()
            if world.awaited and client.ids:
                client._signals()
        for member in world.machine.living():
            if member.condemned:
                world.sometimes["a hung worker was killed"] += member.paused
                member.dies()
                moved = True
            elif member.paused and world.chance.random() < 0.01:
                member.paused = False
            else:
                moved |= member.acts()
        world.turn()
        if all(client.idle for client in world.clients) and not world.awaited:
            return
        if not moved:
            rest = world.rest()
            world.clock.passes(min(max(rest or 0.0, 0.001), 1.0) if rest is not None else 0.1)
    world.judge.wrong("something does not end: " + unfinished(world))


def unfinished(world: World) -> str:
    return "; ".join(f"client {c.number}: {c.waiting} {c.asks} {c.open} {c.watched}" for c in world.clients)
