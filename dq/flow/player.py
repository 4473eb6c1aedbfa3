"""The player: runs one run from its record, with nobody behind it. No step is started, and nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from greenlet import getcurrent

from dq.executor import signed, signing
from dq.executor.codec import Codec
from dq.executor.frames import Block, Finish
from dq.executor.signed import SignedCodec
from dq.flow import context, difference
from dq.flow.fingerprint import fingerprint
from dq.flow.journal import Journal, Recorded
from dq.flow.registry import Registry
from dq.flow.run import Run
from dq.flow.verdict import BLOCKED, FAILED, FINISHED, WAITING, Spot, Verdict
from dq.model.states import COMPLETED, STATUS, RunState

if TYPE_CHECKING:
    from dq.executor.codec import Large
    from dq.executor.frames import Assign, Define, Term
    from dq.flow.home import StepRow

_FIRST = 1 << 62  # ids of steps that are not on record; no file comes so far

Find = Callable[[], Callable[..., Any]]
HistoryRow = tuple[int, int, str, int, bytes, bytes, int, int, bytes, int]  # the shape of a row of `frames.History`


class Delivery(NamedTuple):
    """A completion that the run hears of.

    Attributes:
        seq: Its number in the run.
        spot: Which step.
        call: The step with its arguments, as text.
        came: What came of it, as text.
    """

    seq: int
    spot: Spot
    call: str
    came: str


class _DryCodec(Codec):
    """Reads like any codec, and writes no side files."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._inline = signed.own(None)
        self.restored: list[BaseException] = []  # failures that were read from the record
        self.raised: BaseException | None = None  # what the run has failed with

    def place(self, large: Large, name: str) -> bytes:
        return self._inline.place(large, name)

    def restore(self, payload: bytes) -> BaseException:
        error = super().restore(payload)
        self.restored.append(error)
        return error

    def failure(self, error: BaseException) -> bytes:
        self.raised = error
        return super().failure(error)


class _DrySignedCodec(_DryCodec, SignedCodec):
    """The same with signatures."""


class _WatchedJournal(Journal):
    """Tells of each delivery before the run hears of it."""

    __slots__ = ("tell",)

    tell: Callable[[int], None]

    def deliver(self) -> bool:
        if self._arrived:
            self.tell(self._arrived[0][0])
        return super().deliver()


class Player:
    """Stands in for a host. One player is for one run.

    Args:
        told: The run.
        defines: The functions that its history names, by number.
        rows: Its history.
        find: Gives the workflow's function. What it raises blocks the run, as it would in a host.
        folder: Where side files lie.
        hear: Called with each delivery, before the code goes on.

    Example:
        verdict = Player(assign, defines, rows, lambda: movie, "flows.db.blobs").play()
    """

    def __init__(
        self, told: Assign, defines: dict[int, Define], rows: Iterable[HistoryRow], find: Find,
        folder: str | None = None, hear: Callable[[Delivery], None] | None = None,
    ) -> None:  # fmt: skip
        signer = signing.own()
        self.codec: _DryCodec = _DryCodec(folder) if signer is None else _DrySignedCodec(folder, signer)
        self.greenlet = getcurrent()
        self.thread = threading.get_ident()
        self.registry = Registry(self._introduce)
        self.ids = _Ids()
        self._names: dict[int, str] = {}  # of functions that the code asks for, by the registry's number
        self._find = find
        self._hear = hear
        self._message: Finish | Block | None = None
        self._asked: list[Spot] = []
        self._spots: dict[int, Spot] = {}
        self._recorded: dict[int, Recorded] = {}  # by seq
        self._run = Run.assigned(self, told)
        if hear is not None:
            self._watch(told)
        for row in rows:
            self._load(row, defines[row[1]].name)
        self._run.loaded = self._run.complete = True

    def _watch(self, told: Assign) -> None:
        journal = _WatchedJournal(told.created_at)
        journal.tell = self._told
        self._run.journal = journal
        if told.cancel is not None:
            self._run.hear_cancel(*told.cancel)

    def _load(self, row: HistoryRow, name: str) -> None:
        step, _, scope, occurrence, mark, args, seq, status, payload, at = row
        recorded = Recorded(step, mark, args, seq, status, payload, at)
        self._run.journal.load(scope, name, occurrence, recorded)
        self._spots[step] = Spot(name, scope, occurrence, step)
        if seq and self._hear is not None:
            self._recorded[seq] = recorded

    def play(self) -> Verdict:
        """Runs the code until it rests for good. Never raises what the workflow raises."""
        run = self._run
        while not run.ended:
            if run.runnable():
                self._resume()
            elif not run.journal.deliver():
                break
        return self._judge()

    def _resume(self) -> None:
        context.running = self._run
        try:
            self._run.greenlet.switch()
        finally:
            context.running = None

    def leave(self) -> None:
        """Unwinds the code of a run that waits."""
        run = self._run
        if not run.ended:
            run.ended = True
            if run.greenlet:
                context.running = run
                run.greenlet.throw()
                context.running = None

    def matches(self, state: str, payload: bytes) -> bool:
        """Whether the run has come to what is on record: the same state, and an equal result or failure."""
        message = self._message
        if not isinstance(message, Finish) or message.state != state:
            return False
        if message.payload == payload:
            return True
        try:
            if state == RunState.COMPLETED:
                now, before = self.codec.loads(message.payload), self.codec.loads(payload)
                return fingerprint((now,), {}) == fingerprint((before,), {})
            now, before = self.codec.restore(message.payload), self.codec.restore(payload)
            return type(now) is type(before) and str(now) == str(before)
        except Exception:  # noqa: BLE001 -- what can't be read any more is not the same
            return False

    def _judge(self) -> Verdict:
        message, journal = self._message, self._run.journal
        left = [Spot(name, scope, number, row.id) for scope, name, number, row in journal.left_over()]
        if message is None:
            waits = [self._spots[id] for id in journal.open_ids()]
            return Verdict(WAITING, waits_for=waits, asked=self._asked, left_over=left)
        if isinstance(message, Block):
            return Verdict(BLOCKED, message.reason, asked=self._asked, left_over=left, state=RunState.BLOCKED)
        if message.state == RunState.COMPLETED:
            result = self.codec.loads(message.payload)
            return Verdict(FINISHED, result=result, asked=self._asked, left_over=left, state=message.state)
        error = self.codec.raised
        return Verdict(
            FAILED, difference.trace(error), error=error, asked=self._asked, left_over=left, state=message.state,
            expected=bool(self._run.cancelled) or self._follows(error),
        )  # fmt: skip

    def _follows(self, error: BaseException | None) -> bool:
        """Whether an exception is one from the record, or was raised while one was handled."""
        known = {id(one) for one in self.codec.restored}
        seen: set[int] = set()
        open_ones = [error]
        while open_ones:
            one = open_ones.pop()
            if one is None or id(one) in seen:
                continue
            seen.add(id(one))
            if id(one) in known:
                return True
            open_ones += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                open_ones += one.exceptions
        return False

    def _told(self, seq: int) -> None:
        row = self._recorded.get(seq)
        if row is None or self._hear is None:
            return  # a cancel
        spot = self._spots[row.id]
        try:
            args, kwargs = self.codec.load_call(row.args)
            call = difference.call(spot.name, args, kwargs)
        except Exception:  # noqa: BLE001 -- a class that is gone; the run itself does not need them
            call = f"{spot.name}(...)"
        self._hear(Delivery(seq, spot, call, self._came(row)))

    def _came(self, row: Recorded) -> str:
        try:
            if row.status == COMPLETED:
                return difference.show(self.codec.loads(row.payload))
            error = super(_DryCodec, self.codec).restore(row.payload)
            return f"{STATUS[row.status]}: {type(error).__name__}: {error}"
        except Exception as trouble:  # noqa: BLE001 -- the run meets the same, and says so
            return f"can't be read: {type(trouble).__name__}: {trouble}"

    def workflow(self, run: Run) -> Callable[..., Any]:
        """See `home.Home`, as for those that follow."""
        return self._find()

    def more(self, run: int) -> None:
        raise AssertionError("all of the history is here")

    def write(self, row: StepRow, term: Term | None) -> None:
        spot = self._spots[row[0]] = Spot(self._names[row[2]], row[3], row[4])
        self._asked.append(spot)

    def withdraw(self, run: int, step: int) -> None:
        return None

    def end(self, run: Run, message: Finish | Block) -> None:
        self._message = message

    def _introduce(self, message: Define) -> None:
        self._names[message.number] = message.name


class _Ids:
    def __init__(self) -> None:
        self._numbers = count(_FIRST)

    def take(self) -> int:
        return next(self._numbers)
