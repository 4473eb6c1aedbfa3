"""Runs bodies. Whatever user code does to its arguments, its result and its exceptions is settled here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from time import perf_counter_ns, time_ns
from types import CoroutineType
from typing import Any

from dq.errors import NotImportable
from dq.executor import effects, functions, options
from dq.executor.codec import Codec, Large
from dq.executor.contract import Job, Outcome
from dq.executor.current import running
from dq.executor.frames import Define
from dq.executor.trial import Trials
from dq.model.states import COMPLETED, FAILED

_set_running = running.set


class Runner:
    """Turns jobs into outcomes, in any thread.

    Example:
        runner = Runner(Codec("flows.db.blobs"))
        runner.define(Define(5, "posixpath:join", "step", b"", b"", "", 3))
        job = Job(epoch=1, step=2, attempt=1, function=5, args=..., entry=runner.entry)
        outcome = job.run()
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._loads = codec.load_call
        self._pack = codec.pack
        self.failure = codec.failure
        self.restore = codec.restore
        self._defines: dict[int, Define] = {}
        self._functions: dict[int, Callable[..., Any]] = {}
        self.trials = Trials(self)
        self._is_governed = False  # whether any function has rules
        self._is_copy = False
        effects.serve(codec)
        os.register_at_fork(after_in_child=self._note_copy)

    def define(self, define: Define) -> None:
        """Learns a function; it is imported when a job needs it first."""
        self._defines[define.number] = define
        self._functions.pop(define.number, None)
        if self.trials.govern(define.number, define.name, options.unpack(define.options)):
            self._is_governed = True

    def entry_of(self, function: int) -> Callable[[Job], Outcome]:
        """How jobs of a function are run."""
        return self.trials.entry if self._is_governed and self.trials.has(function) else self.entry

    def entry(self, job: Job) -> Outcome:
        """Runs a job. Never raises: an exit of the body is an outcome too."""
        began = time_ns() // 1000
        start = perf_counter_ns()
        try:
            function = self._functions.get(job.function) or self._find(job.function)
            args, kwargs = self._loads(job.args)
            # It stays set until this thread begins its next body, since nothing in between asks, and it would cost as
            # much again to take it away.
            _set_running(job)
            value = function(*args, **kwargs)
            if type(value) is CoroutineType:
                value = _complete(value)
            packed = self._pack(value)
            if isinstance(packed, Large):
                packed = self._codec.place(packed, f"s{job.step}-e{job.epoch}")
            status = COMPLETED
        except BaseException as error:  # noqa: BLE001 -- sys.exit in a body ends the body and not the worker
            if self._is_copy:
                self._leave(error)
            packed = self._codec.failure(error)
            status = FAILED
        if self._is_copy:
            self._leave(None)
        if effects.pending:
            return effects.settle(job, Outcome(job.step, status, packed, began, perf_counter_ns() - start))
        return Outcome(job.step, status, packed, began, perf_counter_ns() - start)

    def prepare(self, job: Job) -> Callable[[], Any]:
        """A job's body, ready to be called; raises what its function or its arguments raise."""
        function = self._functions.get(job.function) or self._find(job.function)
        args, kwargs = self._loads(job.args)

        def body() -> Any:
            _set_running(job)
            value = function(*args, **kwargs)
            return _complete(value) if type(value) is CoroutineType else value

        return body

    def packed(self, job: Job, value: Any) -> bytes:
        """The payload of what a body has returned. Raises NotPicklable, OSError."""
        packed = self._pack(value)
        return self._codec.place(packed, f"s{job.step}-e{job.epoch}") if isinstance(packed, Large) else packed

    def leave_if_copy(self, error: BaseException | None) -> None:
        """A body may have made a copy of this process, which then comes back out of the body too."""
        if self._is_copy:
            self._leave(error)

    def _find(self, number: int) -> Callable[..., Any]:
        define = self._defines.get(number)
        if define is None:
            raise NotImportable(f"function {number} is not known to this worker; its definition never arrived")
        function = functions.recorded(define.name, define.code)
        self._functions[number] = function
        return function

    def _note_copy(self) -> None:
        self._is_copy = True

    def _leave(self, error: BaseException | None) -> None:
        """Ends a copy of this process that a body has made by fork and that came back out of the body."""
        code = 0 if error is None else 1
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            sys.excepthook(type(error), error, error.__traceback__)
        flush_streams()
        os._exit(code & 0xFF)


def _complete(coroutine: CoroutineType[Any, Any, Any]) -> Any:
    import asyncio

    return asyncio.run(coroutine)


def flush_streams() -> None:
    """Writes out what prints of user code have left in buffers; `os._exit` would drop it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # it is closed, or was replaced by something else
            pass
