"""Bodies of steps for the conformance suite: each does one thing that a step may do to its worker."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from typing import Any, NoReturn

from dq.executor.current import current


class Lopsided(Exception):
    """Pickles, and does not load again: its arguments are not those of `__init__`."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left} and {right}")


class Holder(Exception):
    """Holds something that can't be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Trap:
    """Does `deed` when it is pickled, or when it is unpickled."""

    def __init__(self, when: str, deed: str) -> None:
        self.when = when
        self.deed = deed

    def __reduce__(self) -> tuple[Any, ...]:
        if self.when == "pickle":
            do(self.deed)
        return do, (self.deed,)


def do(deed: str) -> object:
    """Ends the process or the call in one of four ways."""
    if deed == "sys.exit":
        sys.exit(3)
    if deed == "os._exit":
        os._exit(3)
    if deed == "segfault":
        ctypes.string_at(0)
    raise ArithmeticError(deed)


def trap(when: str, deed: str) -> Trap:
    """A result that is a trap."""
    return Trap(when, deed)


class Litter:
    """Does `deed` when it is collected, which only the garbage collector does: it holds itself."""

    def __init__(self, deed: str) -> None:
        self.deed = deed
        self.itself = self

    def __del__(self) -> None:
        do(self.deed)


def litter(deed: str) -> str:
    """Leaves garbage that does its worst when it is collected."""
    Litter(deed)
    gc.collect()
    return "collected"


def nothing() -> None:
    """The smallest body."""


def give(value: object) -> object:
    """Returns its argument."""
    return value


def add(left: int, *, right: int = 0) -> int:
    """Takes one argument of each kind."""
    return left + right


def pid() -> int:
    """Where it runs."""
    return os.getpid()


def told() -> tuple[int, int, int, str]:
    """What a body knows of itself."""
    info = current()
    return info.step, info.attempt, info.epoch, info.idempotency_key


async def told_later() -> int:
    """The same in a coroutine, in a task of its own."""

    async def inner() -> int:
        await asyncio.sleep(0)
        return current().step

    return await asyncio.create_task(inner())


def gate(path: str) -> str:
    """Waits in a read of a named pipe until somebody writes to it and closes it."""
    with open(path, encoding="utf-8") as pipe:
        return pipe.read()


def touch(path: str) -> None:
    """Leaves a line that tells that it has run."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{current().step}\n")


def fail(text: str) -> NoReturn:
    """Raises what travels as it is."""
    raise KeyError(text)


def fail_lopsided() -> NoReturn:
    """Raises what pickles and does not unpickle."""
    raise Lopsided("salt", "pepper")


def fail_holding() -> NoReturn:
    """Raises what does not pickle."""
    raise Holder("mine")


def interrupt() -> NoReturn:
    """Raises what would end a program."""
    raise KeyboardInterrupt


def lock() -> dict[str, list[object]]:
    """Returns something with a lock deep inside."""
    return {"rows": [1, threading.Lock()]}


def nest(depth: int) -> list[Any]:
    """Returns lists in lists, too many to pickle."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def recurse() -> int:
    """Never comes back by itself."""
    return recurse() + 1


def fork() -> str:
    """Leaves a copy of the process that returns from the body too."""
    return "copy" if os.fork() == 0 else "original"


def fork_and_wait() -> int:
    """Has a child process do the work, as multiprocessing does."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=theirs.send, args=(41,))
    child.start()
    value = int(ours.recv())
    child.join()
    return value + 1


def interrupt_group() -> str:
    """What Ctrl-C in a terminal does to every process there."""
    os.kill(os.getpid(), signal.SIGINT)
    return "still here"


def grow(size: int) -> bytes:
    """Returns that many bytes."""
    return bytes(range(256)) * (size // 256)


def aside(size: int) -> pickle.PickleBuffer:
    """Returns a buffer that can lie outside of the pickle."""
    return pickle.PickleBuffer(bytearray(b"x" * size))
