-- The life of a run, as rows.
--
-- A client starts a workflow: one dq_run, `running`. A host runs the workflow's function; for each step it asks for, one
-- dq_step is appended. (A step may also be submitted alone: then `run` is NULL, and its range of ids stands in dq_batch
-- until the last of them has a result.) The supervisor gives steps to a worker: one dq_claim for the whole handful, in the
-- file before a body begins. A step that ends gets its dq_result. An attempt that did not end its step (its worker
-- crashed, it timed out) leaves a dq_attempt and the step is claimed again under a new epoch. When the last step of a
-- claim is settled its dq_claim is deleted. At last the workflow's function returns and dq_run is `completed`.
--
-- So a step's state is where its rows are: a dq_result says how it ended, else an open dq_claim that lists it says
-- `claimed`, else it is `pending`. dq_step and dq_result are append-only: no row there is ever changed, and the primary
-- key of dq_result makes a second completion impossible.
--
-- Times are microseconds since 1970 in UTC. An id is never used twice; steps and runs share one space of ids. An epoch
-- is boot_epoch << 40 | counter: it names one claim for ever. Payloads are opaque here. References between tables are
-- kept by the single writer, which is why none is declared.
--
-- To look around with any SQLite tool (read-only, please), ask the views (views.sql): dq_runs, dq_steps, dq_attempts.

-- Who writes. `boot_epoch` rises with each supervisor and fences its predecessors; ids below `next_id` are given out.
CREATE TABLE dq_engine (
    id          INTEGER PRIMARY KEY,
    boot_epoch  INTEGER NOT NULL,
    boot_id     TEXT    NOT NULL,  -- the machine's boot, as the kernel names it
    clean       INTEGER NOT NULL,  -- 0 while a supervisor is at work, and after one was killed
    next_id     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    salt        TEXT    NOT NULL DEFAULT '',  -- tells this file from all others, wherever it lies
    CONSTRAINT engine_is_one_row CHECK (id = 1),
    CONSTRAINT engine_clean CHECK (clean IN (0, 1)),
    CONSTRAINT engine_counts CHECK (boot_epoch >= 0 AND next_id >= 1)
) STRICT;

-- Where user code comes from: what it takes to import it again.
CREATE TABLE dq_context (
    id      INTEGER PRIMARY KEY,
    python  TEXT NOT NULL,  -- the interpreter
    script  TEXT NOT NULL,  -- the file behind __main__, or ''
    cwd     TEXT NOT NULL,
    path    TEXT NOT NULL,  -- sys.path, a JSON array
    CONSTRAINT context_path_is_json CHECK (json_valid(path))
) STRICT;

-- A function, known by the hash of all that matters about it.
CREATE TABLE dq_function (
    id           INTEGER PRIMARY KEY,
    context      INTEGER NOT NULL,
    name         TEXT    NOT NULL,  -- module:qualname, or the label of one that is stored by value
    kind         TEXT    NOT NULL,
    digest       BLOB    NOT NULL UNIQUE,
    code         BLOB,              -- cloudpickle; NULL when the function is imported by name
    executor     TEXT    NOT NULL,
    max_crashes  INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    options      BLOB,              -- what else its decorator says; NULL for nothing
    CONSTRAINT function_kind CHECK (kind IN ('step', 'workflow'))
) STRICT;

CREATE TABLE dq_run (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE,  -- the id that its caller chose
    function     INTEGER NOT NULL,
    args         BLOB    NOT NULL,
    fingerprint  BLOB    NOT NULL,
    state        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    ended_at     INTEGER,
    payload      BLOB,                     -- its result or its failure
    reason       TEXT,                     -- why it is blocked
    parent       INTEGER,                  -- the run that called it; then a step of the parent has the same id
    deadline     INTEGER,                  -- when it is cancelled if it has not ended
    cancel_seq   INTEGER,                  -- a cancel's place in the order of delivery, NULL where there is none
    cancel_at    INTEGER,
    cancel_cause TEXT,
    checkpoint   INTEGER,                  -- the step behind which its history begins anew
    condemned    TEXT,                     -- why it ends without another word of its code, once its steps are dead
    cancel_key   INTEGER,                  -- an id of its sender's, which may send it twice
    scheduled_at INTEGER,                  -- the time of its schedule that it was started for
    forked_from  INTEGER,                  -- the run whose record its own begins with
    origin       TEXT,                     -- 'ID CREATED_AT NAME' of the first of these, whose time and chance it sees
    CONSTRAINT run_state CHECK (state IN ('running', 'blocked', 'completed', 'failed', 'cancelled')),
    CONSTRAINT run_end CHECK ((ended_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled')))
) STRICT;

-- for unfinished_runs, open_flow_functions, open_waits, max_seqs
CREATE INDEX dq_run_unfinished ON dq_run (state) WHERE state IN ('running', 'blocked');

CREATE TABLE dq_step (
    id           INTEGER PRIMARY KEY,
    run          INTEGER,  -- NULL: submitted alone, and so are the next three
    function     INTEGER NOT NULL,
    scope        TEXT,     -- the branch of the run that asked for it
    occurrence   INTEGER,  -- the how-manieth of this function in that branch
    fingerprint  BLOB,
    args         BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    CONSTRAINT step_place CHECK ((run IS NULL) = (occurrence IS NULL))
) STRICT;

-- for run_steps, run_progress, open_flow_steps, open_flow_functions, next_seq, max_seqs
CREATE INDEX dq_step_run ON dq_step (run) WHERE run IS NOT NULL;

CREATE TABLE dq_result (
    step      INTEGER PRIMARY KEY,
    seq       INTEGER,           -- its place in the order of delivery within its run
    state     TEXT    NOT NULL,
    attempt   INTEGER NOT NULL,  -- 0: it ended before any attempt
    epoch     INTEGER NOT NULL,
    pid       INTEGER NOT NULL,
    began_at  INTEGER NOT NULL,
    ended_at  INTEGER NOT NULL,
    payload   BLOB    NOT NULL,
    -- ORs, since an IN of more than two values builds a table for each row and would cost more than the row itself.
    CONSTRAINT result_state CHECK (
        state = 'completed' OR state = 'failed' OR state = 'cancelled' OR state = 'dead'
    )
) STRICT;

-- Attempts that did not complete their step, with the evidence. `step` is a run's id where a host was lost with the run.
CREATE TABLE dq_attempt (
    step      INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    outcome   TEXT    NOT NULL,
    pid       INTEGER NOT NULL,
    charged   INTEGER NOT NULL,  -- 1: counts against the function's max_crashes
    cause     TEXT    NOT NULL,
    ended_at  INTEGER NOT NULL,
    began_at  INTEGER,           -- of one whose body has failed or taken too long
    PRIMARY KEY (step, attempt, epoch),
    CONSTRAINT attempt_outcome CHECK (outcome IN ('failed', 'crashed', 'timed_out', 'cancelled', 'lost')),
    CONSTRAINT attempt_charged CHECK (charged IN (0, 1))
) STRICT, WITHOUT ROWID;

-- Open claims only.
CREATE TABLE dq_claim (
    epoch       INTEGER PRIMARY KEY,
    slot        INTEGER NOT NULL,
    pid         INTEGER NOT NULL,
    boot_epoch  INTEGER NOT NULL,
    steps       TEXT    NOT NULL,  -- JSON: [[step, attempt], ...]
    claimed_at  INTEGER NOT NULL,
    CONSTRAINT claim_boot_epoch CHECK (boot_epoch = epoch >> 40)
) STRICT;

-- Ranges of steps submitted alone, one of which at least has no result yet.
CREATE TABLE dq_batch (
    first  INTEGER PRIMARY KEY,
    last   INTEGER NOT NULL,
    CONSTRAINT batch_range CHECK (last >= first)
) STRICT;

-- What a step waits for besides a worker, where there is such a thing.
CREATE TABLE dq_term (
    step         INTEGER PRIMARY KEY,
    due_at       INTEGER,                    -- not before; for a wait: no longer than
    priority     INTEGER NOT NULL DEFAULT 0, -- higher goes first
    key          TEXT    NOT NULL DEFAULT '',-- its queue's limits count by it
    dedup        TEXT,                       -- no second step with the same, while this one is open or until:
    dedup_until  INTEGER,
    topic        TEXT,                       -- the signal that a wait is for; the key of what is published
    same_as      INTEGER                     -- the step whose result is this one's: it has the same `dedup`
) STRICT;

-- for find_duplicates
CREATE INDEX dq_term_dedup ON dq_term (dedup) WHERE dedup IS NOT NULL;

-- Queues whose limits were seen. 0 stands for no limit.
CREATE TABLE dq_queue (
    name         TEXT    PRIMARY KEY,
    concurrency  INTEGER NOT NULL,
    per_worker   INTEGER NOT NULL,
    rate_count   INTEGER NOT NULL,  -- no more than so many steps begin
    rate_period  INTEGER NOT NULL,  -- within so many microseconds
    paused       INTEGER NOT NULL,
    overridden   INTEGER NOT NULL,  -- 1: set by hand; 0: as the code says
    CONSTRAINT queue_paused CHECK (paused IN (0, 1)),
    CONSTRAINT queue_overridden CHECK (overridden IN (0, 1))
) STRICT, WITHOUT ROWID;

-- What queues with a rate have let through within the time that they look back.
CREATE TABLE dq_begin (
    queue    TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    step     INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (queue, key, step, attempt)
) STRICT, WITHOUT ROWID;

-- Signals in the order in which they came. `step` is the wait that has taken one.
CREATE TABLE dq_signal (
    id       INTEGER PRIMARY KEY,
    key      INTEGER NOT NULL UNIQUE,  -- an id of its sender's, which may send it twice
    run      INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    payload  BLOB    NOT NULL,
    sent_at  INTEGER NOT NULL,
    step     INTEGER
) STRICT;

-- for open_signals
CREATE INDEX dq_signal_open ON dq_signal (run) WHERE step IS NULL;

-- for fork_size, fork_signals
CREATE INDEX dq_signal_taken ON dq_signal (step) WHERE step IS NOT NULL;

-- How far the body of an open step says that it has come.
CREATE TABLE dq_progress (
    step    INTEGER PRIMARY KEY,
    cursor  BLOB NOT NULL
) STRICT;

-- Runs that are started at times. A firing writes the run and the next time in one transaction, and the run's name is
-- `id@next_at`, so that no time can fire twice.
CREATE TABLE dq_schedule (
    id           TEXT    PRIMARY KEY,
    function     INTEGER NOT NULL,
    args         BLOB    NOT NULL,
    fingerprint  BLOB    NOT NULL,
    expression   TEXT    NOT NULL,  -- cron's, or 'every N s'
    tz           TEXT    NOT NULL,
    catch_up     TEXT    NOT NULL,  -- what becomes of times that nobody was there for
    overlap      TEXT    NOT NULL,  -- what becomes of times at which the run before is unfinished
    paused       INTEGER NOT NULL,
    next_at      INTEGER NOT NULL,  -- when it fires next, unless it is paused
    last_at      INTEGER,           -- the last time for which a run was started
    last_run     TEXT,              -- that run's name
    waiting_at   INTEGER,           -- the time whose run waits for the end of the last one
    skipped      INTEGER NOT NULL,  -- how many times fell out, since the run before was unfinished
    created_at   INTEGER NOT NULL,
    CONSTRAINT schedule_catch_up CHECK (catch_up IN ('skip', 'one', 'all')),
    CONSTRAINT schedule_overlap CHECK (overlap IN ('skip', 'queue', 'allow')),
    CONSTRAINT schedule_paused CHECK (paused IN (0, 1))
) STRICT;

-- Dead letters that somebody has dealt with. `successor` is what tries again: a step, or a run.
CREATE TABLE dq_letter (
    id         INTEGER PRIMARY KEY,  -- of the step or the run that ended badly
    state      TEXT    NOT NULL,
    successor  INTEGER,
    at         INTEGER NOT NULL,
    CONSTRAINT letter_state CHECK (state IN ('retried', 'discarded'))
) STRICT;
