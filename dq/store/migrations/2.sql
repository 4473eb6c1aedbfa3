-- From schema 1: terms, signals, progress, cancels, and a salt.
ALTER TABLE dq_engine ADD COLUMN salt TEXT NOT NULL DEFAULT '';
ALTER TABLE dq_function ADD COLUMN options BLOB;
ALTER TABLE dq_attempt ADD COLUMN began_at INTEGER;
ALTER TABLE dq_run ADD COLUMN parent INTEGER;
ALTER TABLE dq_run ADD COLUMN deadline INTEGER;
ALTER TABLE dq_run ADD COLUMN cancel_seq INTEGER;
ALTER TABLE dq_run ADD COLUMN cancel_at INTEGER;
ALTER TABLE dq_run ADD COLUMN cancel_cause TEXT;
ALTER TABLE dq_run ADD COLUMN checkpoint INTEGER;
ALTER TABLE dq_run ADD COLUMN condemned TEXT;
ALTER TABLE dq_run ADD COLUMN cancel_key INTEGER;
ALTER TABLE dq_run ADD COLUMN scheduled_at INTEGER;
ALTER TABLE dq_run ADD COLUMN forked_from INTEGER;
ALTER TABLE dq_run ADD COLUMN origin TEXT;
DROP VIEW dq_runs;
DROP VIEW dq_steps;
DROP VIEW dq_attempts;
UPDATE dq_engine SET salt = hex(randomblob(16));

CREATE TABLE dq_term (
    step         INTEGER PRIMARY KEY,
    due_at       INTEGER,
    priority     INTEGER NOT NULL DEFAULT 0,
    key          TEXT    NOT NULL DEFAULT '',
    dedup        TEXT,
    dedup_until  INTEGER,
    topic        TEXT,
    same_as      INTEGER
) STRICT;

CREATE INDEX dq_term_dedup ON dq_term (dedup) WHERE dedup IS NOT NULL;

CREATE TABLE dq_queue (
    name         TEXT    PRIMARY KEY,
    concurrency  INTEGER NOT NULL,
    per_worker   INTEGER NOT NULL,
    rate_count   INTEGER NOT NULL,
    rate_period  INTEGER NOT NULL,
    paused       INTEGER NOT NULL,
    overridden   INTEGER NOT NULL,
    CONSTRAINT queue_paused CHECK (paused IN (0, 1)),
    CONSTRAINT queue_overridden CHECK (overridden IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE TABLE dq_begin (
    queue    TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    step     INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (queue, key, step, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE dq_signal (
    id       INTEGER PRIMARY KEY,
    key      INTEGER NOT NULL UNIQUE,
    run      INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    payload  BLOB    NOT NULL,
    sent_at  INTEGER NOT NULL,
    step     INTEGER
) STRICT;

CREATE INDEX dq_signal_open ON dq_signal (run) WHERE step IS NULL;

CREATE INDEX dq_signal_taken ON dq_signal (step) WHERE step IS NOT NULL;

CREATE TABLE dq_progress (
    step    INTEGER PRIMARY KEY,
    cursor  BLOB NOT NULL
) STRICT;

CREATE TABLE dq_schedule (
    id           TEXT    PRIMARY KEY,
    function     INTEGER NOT NULL,
    args         BLOB    NOT NULL,
    fingerprint  BLOB    NOT NULL,
    expression   TEXT    NOT NULL,
    tz           TEXT    NOT NULL,
    catch_up     TEXT    NOT NULL,
    overlap      TEXT    NOT NULL,
    paused       INTEGER NOT NULL,
    next_at      INTEGER NOT NULL,
    last_at      INTEGER,
    last_run     TEXT,
    waiting_at   INTEGER,
    skipped      INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    CONSTRAINT schedule_catch_up CHECK (catch_up IN ('skip', 'one', 'all')),
    CONSTRAINT schedule_overlap CHECK (overlap IN ('skip', 'queue', 'allow')),
    CONSTRAINT schedule_paused CHECK (paused IN (0, 1))
) STRICT;

CREATE TABLE dq_letter (
    id         INTEGER PRIMARY KEY,
    state      TEXT    NOT NULL,
    successor  INTEGER,
    at         INTEGER NOT NULL,
    CONSTRAINT letter_state CHECK (state IN ('retried', 'discarded'))
) STRICT;
