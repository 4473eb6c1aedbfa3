"""What the body of a step wants done together with its completion: collected while it runs, sent when it has returned.

An attempt that fails takes nothing of it along, since nothing was done yet.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from dq.errors import DqError
from dq.executor.codec import Codec
from dq.executor.contract import LONG_BODY, Job, Laden, Outcome
from dq.executor.current import running
from dq.executor.frames import Define, Effects, Params, Term, Value
from dq.model.states import COMPLETED

SIZE_MAX = 64 << 20  # bytes of statements and parameters of one attempt, about
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1


class Wanted:
    """What one attempt has asked for so far, in order."""

    __slots__ = ("_defines", "_job", "_numbers", "_signals", "_size", "_statements", "_submits", "_terms")

    def __init__(self, job: Job) -> None:
        self._job = job
        self._size = 0
        self._statements: list[tuple[str, Params, int | None]] = []
        self._signals: list[tuple[str, str, bytes]] = []
        self._defines: list[Define] = []
        self._numbers: dict[bytes, int] = {}
        self._submits: list[tuple[int, bytes]] = []
        self._terms: list[Term] = []

    def write(self, sql: str, params: Params, expect: int | None) -> None:
        """A statement. Raises ValueError where it becomes too much for one attempt."""
        values = params.values() if isinstance(params, dict) else params
        self._size += len(sql) + sum([len(value) for value in values if isinstance(value, (str, bytes))])
        if self._size > SIZE_MAX:
            raise ValueError(
                f"dq.write: the statements of this attempt hold more than {SIZE_MAX >> 20} MiB by now. They pass through "
                "one process and one transaction; write large data to files of your own, or in several steps"
            )
        self._statements.append((sql, params, expect))

    def signal(self, run: str, name: str, payload: Any) -> None:
        """A signal. Raises NotPicklable."""
        self._signals.append((run, name, self._pack(payload, "signal")))

    def submit(self, define: Define, args: tuple[Any, ...], kwargs: dict[str, Any], term: Term | None) -> None:
        """A step alone. Raises NotPicklable."""
        payload = self._pack((args, kwargs), "arguments")
        define = (_codec or Codec()).introduce(define)
        number = self._numbers.setdefault(define.digest, len(self._defines))
        if number == len(self._defines):
            self._defines.append(define)
        if term is not None:
            self._terms.append(structs.replace(term, step=len(self._submits)))
        self._submits.append((number, payload))

    def _pack(self, value: Any, what: str) -> bytes:
        return (_codec or Codec()).dumps(value, f"s{self._job.step}-e{self._job.epoch}", what=what)

    def frame(self, outcome: Outcome) -> Effects:
        """All of it, with what the body has returned."""
        return Effects(
            self._job.epoch, outcome.step, outcome.payload, outcome.began_at, outcome.busy, self._statements,
            self._signals, self._defines, self._submits, self._terms,
        )  # fmt: skip


# By job, made at the first thing that its body asks for: a body that asks for nothing pays a look at an empty dict.
pending: dict[Job, Wanted] = {}

_codec: Codec | None = None


def serve(codec: Codec) -> None:
    """Tells how payloads are made in this process."""
    global _codec
    _codec = codec


def wanted(call: str, elsewhere: str) -> Wanted:
    """What the body that runs here has asked for.

    Args:
        call: What is called, for the message.
        elsewhere: What to do where no body of a step runs.

    Raises:
        DqError: No body of a step runs in this thread or task.
    """
    job = running.get()
    if job is None:
        raise DqError(f"{call} belongs into the body of a step, and none runs in this thread. {elsewhere}")
    found = pending.get(job)
    if found is None:
        found = pending[job] = Wanted(job)
    return found


def settle(job: Job, outcome: Outcome) -> Outcome:
    """The outcome of a job, laden with what its body has asked for if it has completed."""
    made = pending.pop(job, None)
    if made is None or outcome.status != COMPLETED:
        return outcome
    busy = max(outcome.busy, LONG_BODY + 1)
    return Laden(outcome.step, outcome.status, outcome.payload, outcome.began_at, busy, made.frame(outcome))


def check(call: str, sql: Any, params: Any) -> Params:
    """The parameters of a statement as they travel. `call` begins the messages.

    Raises TypeError and ValueError, which name the culprit.

    >>> check("dq.write", "...", (1, "a"))
    [1, 'a']
    """
    if not isinstance(sql, str):
        raise TypeError(f"{call}: the statement is a {type(sql).__name__}; it must be a str")
    if not sql.strip():
        raise ValueError(f"{call}: the statement is empty")
    _check_text(f"{call}: the statement", sql)
    if isinstance(params, dict):
        for key in params:
            if not isinstance(key, str):
                raise TypeError(f"{call}: params has the key {key!r}; the keys are the names of :name parameters")
        return {str(key): _value(f"{call}: params[{key!r}]", value) for key, value in params.items()}
    if isinstance(params, (tuple, list)):
        return [_value(f"{call}: params[{index}]", value) for index, value in enumerate(params)]
    raise TypeError(f"{call}: params is a {type(params).__name__}; it must be a tuple, or a dict for :name parameters")


def _value(what: str, value: Any) -> Value:
    """A parameter as the plain type that it is or derives from."""
    if value is None or type(value) in (float, bytes):
        return value  # type: ignore[no-any-return]
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise ValueError(f"{what} is {value}; SQLite's integers have 64 bits. Hand it over as a str")
        return int(value)
    if isinstance(value, str):
        _check_text(what, value)
        return str.__str__(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes):
        return bytes(value)
    raise TypeError(
        f"{what} is of type {type(value).__qualname__}; a parameter is None, int, float, str or bytes. Convert it first"
    )


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} holds a lone surrogate at {error.start}, which is no text") from None
