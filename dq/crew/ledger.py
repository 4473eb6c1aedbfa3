"""What the supervisor knows: places that code comes from, functions, runs, and ids given out.

The ledger is the file's content as of the next commit, as far as decisions need it. It changes together with the
group that is being collected, so that what it says is never ahead of what will be written.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING

from msgspec import structs

from dq.executor import options
from dq.executor.frames import Context, Define
from dq.model.states import RunState
from dq.store.group import ContextRow, FunctionRow, RunChange, RunRow

if TYPE_CHECKING:
    from dq.crew.claims import Batch
    from dq.crew.committer import Committer
    from dq.crew.members import Member
    from dq.crew.peer import Peer
    from dq.model.clock import Clock
    from dq.store.store import Store

BLOCK = 1 << 16  # ids in one lease


class Function:
    """A function of the file."""

    __slots__ = ("context", "cost", "define", "executor", "id", "kind", "max_crashes", "name", "options")

    def __init__(self, id: int, context: int, define: Define) -> None:
        self.id = id
        self.context = context
        self.name = define.name
        self.kind = define.kind
        self.executor = define.executor
        self.max_crashes = define.max_crashes
        self.options = options.unpack(define.options)
        self.define = define
        self.cost = -1  # nanoseconds of one body, averaged; -1: not known yet


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
        self.wary: set[int] = set()  # steps that were claimed when the machine stopped: their claims are synced
        self.flow: dict[int, Run] = {}  # the run of each loaded step of a workflow
        self.homeless: dict[int, Run] = {}  # runs that are to be given to a host
        self.next_id = 0

    def epoch(self) -> int:
        """A new fencing token: unique for ever, since no two boots share a number."""
        self._claims += 1
        return self.boot_epoch << 40 | self._claims

    def lease(self) -> tuple[int, int]:
        """A block of ids that nobody else gets, in this boot or a later one, once the group is on disk."""
        first = self.next_id
        self.next_id += BLOCK
        self._committer.group.lease_to = self.next_id
        self._committer.dirty = True
        return first, BLOCK

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
        return known

    def _keep(self, id: int, context: int, define: Define) -> Function:
        numbered = structs.replace(define, number=id)
        function = Function(id, context, numbered)
        if not define.code:
            self._modules.setdefault(context, set()).add(define.name.partition(":")[0])
        self.functions[id] = self._by_digest[define.digest] = function
        return function

    def load(self) -> None:
        """Reads contexts, functions and unfinished runs from the file."""
        for row in self._store.contexts():
            path = tuple(json.loads(row.path))
            self.contexts[row.id] = Context(row.python, row.script, row.cwd, path, "")
        for made in self._store.functions():
            define = Define(
                made.id, made.name, made.kind, made.digest, made.code or b"", made.executor, made.max_crashes,
                made.options or b"",
            )  # fmt: skip
            self._keep(made.id, made.context, define)

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
