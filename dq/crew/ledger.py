"""What the supervisor knows: places that code comes from, functions, runs, and ids given out.

The ledger is the file's content as of the next commit, as far as decisions need it. It changes together with the
group that is being collected, so that what it says is never ahead of what will be written.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from msgspec import structs

from dq.crew.homeless import Homeless
from dq.executor import options
from dq.executor.contract import Capability
from dq.executor.frames import Context, Define, Try
from dq.model.states import RunState
from dq.store.group import ContextRow, FunctionRow, RunChange, RunRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dq.crew.claims import Batch, Row
    from dq.crew.committer import Committer
    from dq.crew.gates import Queue
    from dq.crew.members import Member
    from dq.crew.peer import Peer
    from dq.crew.queues import Queues
    from dq.model.clock import Clock
    from dq.store.store import Store

BLOCK = 1 << 16  # ids in one lease


class Function:
    """A function of the file."""

    __slots__ = (
        "context", "cost", "define", "executor", "has_terms", "id", "kind", "max_crashes", "name", "needs", "options",
        "queue",
    )  # fmt: skip

    def __init__(self, id: int, context: int, define: Define) -> None:
        self.id = id
        self.context = context
        self.name = define.name
        self.kind = define.kind
        self.executor = define.executor
        self.max_crashes = define.max_crashes
        self.options = options.unpack(define.options)
        self.needs = _needs(self.options) if define.kind == "step" else None
        self.define = define
        self.cost = -1  # nanoseconds of one body, averaged; -1: not known yet
        self.queue: Queue | None = None  # where its steps wait besides
        self.has_terms = False  # whether one of its steps waits elsewhere than the others

    @property
    def crashes_max(self) -> int:
        """How many deaths of its worker end a step of it."""
        return 1 if self.options.on_crash == "fail" else self.max_crashes


def _needs(told: options.Options) -> Capability | None:
    """What an executor must be able to do; None: nothing in particular."""
    needs = Capability.HARD_TIMEOUT if told.timeout else Capability.NONE
    if told.memory:
        needs |= Capability.MEMORY_LIMIT
    return needs or None


class Tried(NamedTuple):
    """What came of a step's attempts. Times are microseconds UTC."""

    failures: int = 0  # that count for its retries
    since: int = 0  # when the first of them began
    verdict: bytes = b""  # the failure of an attempt that took too long, until a worker has judged it
    ended_at: int = 0  # that attempt


class Run:
    """A run that has not ended, or whose end is not on disk yet."""

    __slots__ = (
        "cancel_key", "children", "crashes", "ending", "fingerprint", "function", "host", "id", "name", "open", "parent",
        "reason", "root", "sent", "seq", "state", "waits", "watchers",
    )  # fmt: skip

    def __init__(self, id: int, name: str, function: Function, fingerprint: bytes, state: str) -> None:
        self.id = id
        self.name = name
        self.function = function
        self.fingerprint = fingerprint
        self.state = state
        self.reason = ""
        self.host: Member | None = None
        self.seq = 0  # number of the last completion
        self.open = 0  # steps without a result
        self.crashes = 0
        self.parent = 0  # the run that called it
        self.root = name  # the name of the topmost of its ancestors
        self.sent = 0  # the last step of its history that its host has
        self.cancel_key: int | None = None  # of the first cancel; None: it was not asked to end
        self.waits: set[int] | None = None  # open steps that the supervisor itself ends
        self.children: set[int] | None = None  # runs that it has called and that have not ended
        self.watchers: set[Peer] | None = None
        self.ending: tuple[str, bytes] | None = None  # what it came to, while some of its steps are still open


class Ledger:
    """Contexts, functions, runs and ids, in memory and on their way to the file."""

    def __init__(self, store: Store, committer: Committer, clock: Clock, boot_epoch: int) -> None:
        self._store = store
        self._committer = committer
        self._clock = clock
        self._claims = 0
        self.boot_epoch = boot_epoch
        self.contexts: dict[int, Context] = {}
        self.functions: dict[int, Function] = {}
        self._by_digest: dict[bytes, Function] = {}
        self._modules: dict[int, set[str]] = {}
        self.runs: dict[int, Run] = {}
        self.by_name: dict[str, Run] = {}
        self.batches: dict[int, Batch] = {}
        self.crashes: dict[int, int] = {}  # charged, by step
        self.tried: dict[int, Tried] = {}  # by step
        self.cursors: dict[int, bytes] = {}  # how far open steps say that they have come
        self.salt = ""
        self.wary: set[int] = set()  # steps that were claimed when the machine stopped: their claims are synced
        self.flow: dict[int, Run] = {}  # the run of each loaded step of a workflow
        self.homeless = Homeless()  # runs that are to be given to a host
        self.next_id = 0
        self.queues: Queues  # set by the supervisor

    def epoch(self) -> int:
        """A new fencing token: unique for ever, since no two boots share a number."""
        self._claims += 1
        return self.boot_epoch << 40 | self._claims

    def tries(self, rows: list[Row]) -> list[Try]:
        """What a worker must know of the earlier attempts of these steps."""
        told: list[Try] = []
        if self.tried or self.cursors:
            for id, *_ in rows:
                tried, cursor = self.tried.get(id), self.cursors.get(id, b"")
                if tried is not None or cursor:
                    failures, since, verdict, _ended_at = tried or Tried()
                    told.append(Try(id, failures, since, cursor, verdict))
        return told

    def run_names(self, rows: list[Row]) -> list[str]:
        """The runs of these steps: one name if it is the same for all, else one for each."""
        names = [self.flow[row[0]].name for row in rows]
        return names[:1] if len(names) == 1 or len(set(names)) == 1 else names

    def settled(self, ids: Iterable[int]) -> None:
        """These steps have ended: what was kept for another attempt goes."""
        if self.cursors or self.tried or self.crashes:
            for id in ids:
                self.tried.pop(id, None)
                self.crashes.pop(id, None)
                if self.cursors.pop(id, None) is not None:
                    self._committer.group.closed_progress.append((id,))

    def lease(self) -> tuple[int, int]:
        """A block of ids that nobody else gets, in this boot or a later one, once the group is on disk."""
        first = self.next_id
        self.next_id += BLOCK
        self._committer.group.lease_to = self.next_id
        self._committer.dirty = True
        return first, BLOCK

    def take(self, count: int) -> int:
        """The first of so many ids that follow one another, for what the supervisor itself writes down."""
        first = self.next_id
        self.next_id += count
        self._committer.group.lease_to = self.next_id
        self._committer.dirty = True
        return first

    def context(self, context: Context) -> int:
        """The number of a place that code comes from; its script's text does not count."""
        for number, known in self.contexts.items():
            if (known.python, known.script, known.cwd, known.path) == (
                context.python, context.script, context.cwd, context.path,
            ):  # fmt: skip
                return number
        number = max(self.contexts, default=0) + 1
        self.contexts[number] = context
        row = ContextRow(number, context.python, context.script, context.cwd, json.dumps(context.path))
        self._committer.group.contexts.append(row)
        self._committer.dirty = True
        return number

    def function(self, define: Define, context: int) -> Function:
        """The file's function for what a client or host has defined.

        The same name means something else where it is imported from another place, so the context is part of it.
        """
        digest = blake2b(b"%d" % context + define.digest, digest_size=16).digest()
        known = self._by_digest.get(digest)
        if known is None:
            known = self._keep(max(self.functions, default=0) + 1, context, structs.replace(define, digest=digest))
            row = FunctionRow(
                known.id, context, define.name, define.kind, digest, define.code or None, define.executor,
                define.max_crashes, self._clock.now(), define.options or None,
            )  # fmt: skip
            self._committer.group.functions.append(row)
            self._committer.dirty = True
        if known.options.queue:
            self.queues.seen(known)
        return known

    def _keep(self, id: int, context: int, define: Define) -> Function:
        numbered = structs.replace(define, number=id)
        function = Function(id, context, numbered)
        if not define.code:
            self._modules.setdefault(context, set()).add(define.name.partition(":")[0])
        self.functions[id] = self._by_digest[define.digest] = function
        return function

    def load(self) -> None:
        """Reads contexts, functions and cursors from the file."""
        self.salt = self._store.salt()
        self.cursors = self._store.progress()
        for row in self._store.contexts():
            path = tuple(json.loads(row.path))
            self.contexts[row.id] = Context(row.python, row.script, row.cwd, path, "")
        for made in self._store.functions():
            define = Define(
                made.id, made.name, made.kind, made.digest, made.code or b"", made.executor, made.max_crashes,
                made.options or b"",
            )  # fmt: skip
            function = self._keep(made.id, made.context, define)
            if function.options.queue:
                self.queues.seen(function, fresh=False)

    def modules(self, context: int) -> set[str]:
        """The modules that the functions of a context are imported from."""
        return self._modules.get(context, set())

    def start(
        self, id: int, name: str, function: Function, args: bytes, fingerprint: bytes, parent: Run | None = None,
        deadline: int | None = None, scheduled_at: int | None = None,
    ) -> Run:  # fmt: skip
        run = self.remember(id, name, function, fingerprint, RunState.RUNNING)
        if parent is not None:
            self.adopt(run, parent)
        now = self._clock.now()
        row = RunRow(id, name, function.id, args, fingerprint, now, run.parent or None, deadline, scheduled_at)
        self._committer.group.runs.append(row)
        self._committer.dirty = True
        return run

    @staticmethod
    def adopt(run: Run, parent: Run) -> None:
        """A run is the child of another."""
        run.parent, run.root = parent.id, run.name.rpartition("/")[0]
        if parent.children is None:
            parent.children = set()
        parent.children.add(run.id)

    def remember(self, id: int, name: str, function: Function, fingerprint: bytes, state: str) -> Run:
        run = Run(id, name, function, fingerprint, state)
        self.runs[id] = self.by_name[name] = run
        if state == RunState.RUNNING:
            self.homeless[id] = run
        return run

    def change(self, run: Run, state: RunState, payload: bytes | None = None, reason: str | None = None) -> None:
        """Moves a run to another state; one that has ended is forgotten when that is in the file."""
        final = state not in (RunState.RUNNING, RunState.BLOCKED)
        row = RunChange(str(state), self._clock.now() if final else None, payload, reason, run.id, run.state)
        self._committer.group.run_changes.append(row)
        self._committer.dirty = True
        run.state = str(state)
        run.reason = reason or ""
        if state == RunState.RUNNING:
            self.homeless[run.id] = run
        else:
            self.homeless.pop(run.id, None)
        if final:
            self._committer.then.append(lambda: self._forget(run))

    def _forget(self, run: Run) -> None:
        self.runs.pop(run.id, None)
        if self.by_name.get(run.name) is run:
            del self.by_name[run.name]
