"""What a supervisor does before it serves: it puts right what its predecessor left.

The order matters. The predecessor's members are dead already (`ownership`). The slots say what they had begun; that
evidence goes into the file, synced, before a slot is used again. Then what is unfinished is queued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dq.crew.claims import Batch, Segment, Span
from dq.crew.delays import FAR
from dq.crew.results import PATIENCE, quarantine
from dq.executor.options import SUPERVISOR
from dq.executor.slots import BEGUN, FREE, SLOTS, UNSENT, SlotReader
from dq.model.states import DEAD, STATUS
from dq.store.group import AttemptRow

if TYPE_CHECKING:
    from dq.crew.ledger import Run
    from dq.crew.supervisor import Supervisor
    from dq.store.reads import ClaimRecord, OpenTerm
    from dq.store.store import Boot

MACHINE = "the machine stopped"


def recover(supervisor: Supervisor, slots: SlotReader, boot: Boot) -> None:
    """Brings ledger and queues to where the file is, and the file to where the work is."""
    ledger, store = supervisor.ledger, supervisor.store
    ledger.load()
    ledger.next_id = store.next_id()
    marks = {(e.epoch, e.id): e.mark for slot in range(SLOTS) for e in slots.entries(slot)} if boot.unclean else {}
    for claim in store.open_claims():
        _release(supervisor, claim, marks, boot.machine_changed)
    supervisor.committer.settle()
    for slot in range(SLOTS):
        if slots.identity(slot).pid:
            slots.clear(slot)
    _runs(supervisor)
    supervisor.queues.load()
    if supervisor.options.workers:
        _queue(supervisor)
        supervisor.dedups.resume()
    else:
        supervisor.waits.load()  # signals are numbered by whoever takes them down
    supervisor.cancels.load()
    supervisor.schedules.load()


def _release(
    supervisor: Supervisor, claim: ClaimRecord, marks: dict[tuple[int, int], int], machine_changed: bool
) -> None:
    """Ends a claim of an earlier boot. What was begun died with its supervisor, which is not its fault; unless often."""
    group = supervisor.committer.group
    ids = [step for step, _ in claim.steps]
    done = {row.id for row in supervisor.store.results(ids)}
    tried = supervisor.store.attempts(ids)
    now = supervisor.clock.now()
    for step, attempt in claim.steps:
        mark = marks.get((claim.epoch, step), FREE)
        if step in done or (mark not in (BEGUN, UNSENT) and not machine_changed):
            continue
        function = supervisor.ledger.functions[supervisor.store.step_function(step)]
        causes = supervisor.store.attempt_causes(step)
        again = any(row.cause == MACHINE for row in causes)
        deaths = sum(row.outcome in ("lost", "crashed") for row in causes) + 1
        charged = again if machine_changed else mark == BEGUN and deaths >= PATIENCE * function.max_crashes
        cause = MACHINE if machine_changed else "the supervisor ended, and its workers with it"
        if any(row.epoch == claim.epoch for row in causes):
            charged = False  # another successor has taken it down, and was killed before it was through
        else:
            group.attempts.append(AttemptRow(step, attempt, claim.epoch, "lost", claim.pid, int(charged), cause, now))
        crashes = tried[step][1] + charged
        if machine_changed:
            supervisor.ledger.wary.add(step)
        if charged and function.options.on_crash == "park":
            group.dues.append((step, FAR))
            supervisor.ledger.crashes[step] = crashes
        elif charged and crashes >= function.crashes_max:
            supervisor.ledger.settled([step])
            seq = supervisor.store.next_seq(step)
            payload = quarantine(function, crashes, cause)
            group.results.append((step, seq, STATUS[DEAD], attempt, claim.epoch, 0, now, now, payload))
            supervisor.committer.dirty = True
            supervisor.committer.commit()  # the next one's number follows from what is in the file
            group = supervisor.committer.group
        elif crashes:
            supervisor.ledger.crashes[step] = crashes
    group.closed_claims.append((claim.epoch,))
    supervisor.committer.dirty = True


def _runs(supervisor: Supervisor) -> None:
    ledger, store = supervisor.ledger, supervisor.store
    seqs = store.max_seqs()
    records = store.unfinished_runs()
    tried = store.attempts([record.id for record in records])
    for record in records:
        function = ledger.functions[record.function]
        run = ledger.remember(record.id, record.name, function, record.fingerprint, record.state)
        run.seq = seqs.get(record.id, 0)
        run.reason = record.reason or ""
        run.crashes = tried[record.id][1]
        run.cancel_key = record.cancel_key
        if record.parent:
            run.parent, run.root = record.parent, run.name.rpartition("/")[0]
        supervisor.hosts.watch_deadline(run, record.deadline or 0)
        if record.condemned is not None:
            supervisor.cancels.condemn(run, record.condemned)
            ledger.homeless.pop(run.id, None)

    for run in [run for run in ledger.runs.values() if run.parent in ledger.runs]:
        ledger.adopt(run, ledger.runs[run.parent])


def _queue(supervisor: Supervisor) -> None:
    """Queues what has no result, as ranges of ids: reading it all could fill the memory."""
    ledger, store, scheduler = supervisor.ledger, supervisor.store, supervisor.scheduler
    for first, last in store.open_batches():
        spans = [Span(*row) for row in store.open_functions(first, last)]
        batch = Batch(first, last, sum(span.steps for span in spans), None)
        ledger.batches[first] = batch
        for term in store.open_terms(first, last):
            _place(supervisor, term, batch, None)
        for span in spans:
            if len(spans) == 1:
                stored = scheduler.enqueue_stored(span, batch, None)
            else:
                stored = _by_function(supervisor, span, batch)
            if not stored:
                _refuse(supervisor, span, batch)
        if not spans:
            supervisor.committer.group.closed_batches.append((first,))
            supervisor.committer.dirty = True
            del ledger.batches[first]
    supervisor.waits.load()
    for term in store.open_flow_terms():
        _place(supervisor, term, None, ledger.runs[term.run or 0])
    for run_id, *rest in store.open_flow_functions():
        run, span = ledger.runs[run_id], Span(*rest)
        function = ledger.functions[span.function]
        if function.executor == SUPERVISOR:
            continue
        run.open += span.steps
        if function.kind == "workflow":
            ledger.flow.update((id, run) for id in run.children or ())
            continue
        if not scheduler.enqueue_stored(span, None, run):
            rows = [(id, 1, function, args) for id, function, args in store.open_flow_steps(
                run_id, span.function, span.first - 1, span.last, span.steps)]  # fmt: skip
            ledger.flow.update((row[0], run) for row in rows)
            supervisor.results.no_executor(ledger.functions[span.function], rows, None)


def _by_function(supervisor: Supervisor, span: Span, batch: Batch) -> bool:
    """A batch that mixes functions is read at once: each of them may want another lane."""
    lane = supervisor.scheduler.lane(supervisor.ledger.functions[span.function])
    made = supervisor.store.open_steps(span.first, span.last, limit=span.last - span.first + 1)
    tried = supervisor.store.attempts([row[0] for row in made])
    rows = [(id, tried[id][0] + 1, function, args) for id, function, args in made if function == span.function]
    if lane is not None:
        rows = supervisor.terms.recall(rows, Segment([], batch))
        if rows:
            supervisor.scheduler.enqueue(lane, 0, rows, batch, spill=False)
    return lane is not None


def _place(supervisor: Supervisor, term: OpenTerm, batch: Batch | None, run: Run | None) -> None:
    """What waits elsewhere than the steps around it is put there by itself."""
    function = supervisor.ledger.functions[term.function]
    place = supervisor.queues.place_for(function, term.priority, term.key)
    waits = term.dedup and term.due_at is not None and supervisor.scheduler.lane(function) is not None
    if run is not None and (waits or term.same_as is not None):
        supervisor.ledger.flow[term.step] = run
    if waits and term.same_as is None:
        attempt = supervisor.store.attempts([term.step])[term.step][0] + 1
        supervisor.delays.hold((term.step, attempt, term.function, term.args), batch, term.due_at or 0)
    if term.dedup:
        supervisor.dedups.restore(term, batch)
    if term.same_as is not None or waits:
        pass  # they are where they belong
    elif term.priority or term.key:
        assert place is not None
        supervisor.scheduler.enqueue_stored(Span(term.function, term.step, term.step, 1), batch, run, place)


def _refuse(supervisor: Supervisor, span: Span, batch: Batch) -> None:
    made = supervisor.store.open_steps(span.first, span.last, limit=span.last - span.first + 1)
    rows = [(id, 1, function, args) for id, function, args in made if function == span.function]
    supervisor.results.no_executor(supervisor.ledger.functions[span.function], rows, batch)
