-- Every statement that dq runs, named. Parameters are numbered in the order of the rows in group.py.

-- name: begin
BEGIN IMMEDIATE;

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: count_schema
SELECT count(*) FROM sqlite_schema;

-- What no statement of a user's may have changed.
-- name: own_schema
SELECT type, name, tbl_name, sql FROM sqlite_schema
WHERE name LIKE 'dq\_%' ESCAPE '\' OR tbl_name LIKE 'dq\_%' ESCAPE '\' ORDER BY name;

-- name: insert_engine
INSERT INTO dq_engine (id, boot_epoch, boot_id, clean, next_id, created_at, salt)
VALUES (1, 0, '', 1, 1, ?, hex(randomblob(16)));

-- name: engine
SELECT boot_epoch, boot_id, clean, next_id, created_at, salt FROM dq_engine WHERE id = 1;

-- name: boot
UPDATE dq_engine SET boot_epoch = boot_epoch + 1, boot_id = ?, clean = 0 WHERE id = 1 AND boot_epoch = ?;

-- name: mark_clean
UPDATE dq_engine SET clean = 1 WHERE id = 1 AND boot_epoch = ?;

-- The first statement of each group: it fences a supervisor that has a successor.
-- name: fence
SELECT 1 FROM dq_engine WHERE id = 1 AND boot_epoch = ?;

-- name: lease
UPDATE dq_engine SET next_id = max(next_id, ?) WHERE id = 1 AND boot_epoch = ?;

-- name: insert_context
INSERT INTO dq_context (id, python, script, cwd, path) VALUES (?, ?, ?, ?, ?);

-- name: insert_function
INSERT INTO dq_function (id, context, name, kind, digest, code, executor, max_crashes, created_at, options)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_run
INSERT INTO dq_run (id, name, function, args, fingerprint, state, created_at, parent, deadline, scheduled_at)
VALUES (?, ?, ?, ?, ?, 'running', ?, ?, ?, ?);

-- name: change_run
UPDATE dq_run SET state = ?, ended_at = ?, payload = ?, reason = ? WHERE id = ? AND state = ?;

-- name: cancel_run
UPDATE dq_run SET cancel_seq = ?, cancel_at = ?, cancel_cause = ?, cancel_key = ? WHERE id = ? AND cancel_seq IS NULL;

-- name: condemn_run
UPDATE dq_run SET condemned = ? WHERE id = ?;

-- name: set_checkpoint
UPDATE dq_run SET checkpoint = ? WHERE id = ?;

-- name: checkpoint_at
SELECT step.args, step.scope, result.ended_at
FROM dq_step AS step JOIN dq_result AS result ON result.step = step.id WHERE step.id = ?;

-- name: insert_batch
INSERT INTO dq_batch (first, last) VALUES (?, ?);

-- name: delete_batch
DELETE FROM dq_batch WHERE first = ?;

-- name: insert_step
INSERT INTO dq_step (id, function, args, created_at) VALUES (?, ?, ?, ?);

-- name: insert_flow_step
INSERT INTO dq_step (id, run, function, scope, occurrence, fingerprint, args, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_result
INSERT INTO dq_result (step, seq, state, attempt, epoch, pid, began_at, ended_at, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_attempt
INSERT INTO dq_attempt (step, attempt, epoch, outcome, pid, charged, cause, ended_at, began_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_claim
INSERT INTO dq_claim (epoch, slot, pid, boot_epoch, steps, claimed_at) VALUES (?1, ?2, ?3, ?1 >> 40, ?4, ?5);

-- name: delete_claim
DELETE FROM dq_claim WHERE epoch = ?1 AND boot_epoch = ?1 >> 40;

-- name: trim_claim
UPDATE dq_claim SET steps = ?1 WHERE epoch = ?2;

-- name: claim_is_open
SELECT 1 FROM dq_claim WHERE epoch = ?;

-- name: contexts
SELECT id, python, script, cwd, path FROM dq_context ORDER BY id;

-- name: functions
SELECT id, context, name, kind, digest, code, executor, max_crashes, created_at, options FROM dq_function ORDER BY id;

-- name: unfinished_runs
SELECT id, name, function, args, fingerprint, state, created_at, ended_at, payload, reason,
       parent, deadline, cancel_seq, cancel_at, cancel_cause, cancel_key, checkpoint, scheduled_at, forked_from,
       origin, condemned
FROM dq_run WHERE state IN ('running', 'blocked') ORDER BY id;

-- name: find_run
SELECT id, name, function, args, fingerprint, state, created_at, ended_at, payload, reason,
       parent, deadline, cancel_seq, cancel_at, cancel_cause, cancel_key, checkpoint, scheduled_at, forked_from,
       origin, condemned
FROM dq_run WHERE name = ?;

-- name: run_by_id
SELECT id, name, function, args, fingerprint, state, created_at, ended_at, payload, reason,
       parent, deadline, cancel_seq, cancel_at, cancel_cause, cancel_key, checkpoint, scheduled_at, forked_from,
       origin, condemned
FROM dq_run WHERE id = ?;

-- name: run_steps
SELECT step.id, step.function, step.scope, step.occurrence, step.fingerprint, step.args,
       coalesce(result.seq, 0), result.state, coalesce(result.payload, x''), coalesce(result.ended_at, 0)
FROM dq_step AS step LEFT JOIN dq_result AS result ON result.step = step.id
WHERE step.run = ? AND step.id > ? ORDER BY step.id LIMIT ?;

-- name: run_progress
SELECT count(result.step), count(*)
FROM dq_step AS step LEFT JOIN dq_result AS result ON result.step = step.id WHERE step.run = ?;

-- name: max_seqs
SELECT run.id, max(coalesce(max(result.seq), 0), coalesce(run.cancel_seq, 0))
FROM dq_run AS run
LEFT JOIN dq_step AS step ON step.run = run.id
LEFT JOIN dq_result AS result ON result.step = step.id
WHERE run.state IN ('running', 'blocked') GROUP BY run.id;

-- name: upsert_term
INSERT INTO dq_term (step, due_at, priority, key, dedup, dedup_until, topic, same_as) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (step) DO UPDATE SET due_at = excluded.due_at, priority = excluded.priority;

-- name: upsert_due
INSERT INTO dq_term (step, due_at) VALUES (?, ?) ON CONFLICT (step) DO UPDATE SET due_at = excluded.due_at;

-- name: terms
SELECT step, due_at, priority, key, dedup, dedup_until, topic, same_as
FROM dq_term WHERE step IN (SELECT value FROM json_each(?));

-- name: set_same_as
UPDATE dq_term SET same_as = ? WHERE step = ?;

-- What waits elsewhere than the steps around it, or has a word, of those submitted alone.
-- name: open_terms
SELECT term.step, step.function, NULL, term.due_at, term.priority, term.key, term.dedup, term.dedup_until,
       term.same_as, iif(term.dedup IS NULL, x'', step.args)
FROM dq_term AS term JOIN dq_step AS step ON step.id = term.step
WHERE term.step >= ? AND term.step <= ? AND step.run IS NULL
  AND (term.priority <> 0 OR term.key <> '' OR term.dedup IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = term.step)
ORDER BY term.step;

-- The same of unfinished runs.
-- name: open_flow_terms
SELECT step.id, step.function, step.run, term.due_at, term.priority, term.key, term.dedup, term.dedup_until,
       term.same_as, iif(term.dedup IS NULL, x'', step.args)
FROM dq_run AS run
CROSS JOIN dq_step AS step ON step.run = run.id
JOIN dq_term AS term ON term.step = step.id
WHERE run.state IN ('running', 'blocked')
  AND (term.priority <> 0 OR term.key <> '' OR term.dedup IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = step.id)
ORDER BY step.id;

-- name: find_duplicates
SELECT term.step, step.function, coalesce(term.dedup_until, 0), result.step IS NOT NULL, coalesce(term.due_at, 0)
FROM dq_term AS term
JOIN dq_step AS step ON step.id = term.step
LEFT JOIN dq_result AS result ON result.step = term.step
WHERE term.dedup = ?1 AND term.same_as IS NULL
  AND (result.step IS NULL OR (term.dedup_until > ?2 AND result.state <> 'cancelled'))
ORDER BY term.step DESC;

-- name: oldest_step
SELECT coalesce(min(created_at), 0) FROM dq_step WHERE id IN (SELECT value FROM json_each(?));

-- name: upsert_queue
INSERT INTO dq_queue (name, concurrency, per_worker, rate_count, rate_period, paused, overridden)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET
    concurrency = excluded.concurrency, per_worker = excluded.per_worker, rate_count = excluded.rate_count,
    rate_period = excluded.rate_period, paused = excluded.paused, overridden = excluded.overridden;

-- name: queues
SELECT name, concurrency, per_worker, rate_count, rate_period, paused, overridden FROM dq_queue ORDER BY name;

-- name: upsert_begin
INSERT INTO dq_begin (queue, key, step, attempt, at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (queue, key, step, attempt) DO UPDATE SET at = excluded.at;

-- name: delete_begin
DELETE FROM dq_begin WHERE queue = ? AND key = ? AND step = ? AND attempt = ?;

-- name: begins
SELECT queue, key, step, attempt, at FROM dq_begin ORDER BY at;

-- name: insert_signal
INSERT INTO dq_signal (id, key, run, name, payload, sent_at, step) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: take_signal
UPDATE dq_signal SET step = ?1 WHERE id = ?2 AND step IS NULL;

-- name: last_signal
SELECT coalesce(max(id), 0) FROM dq_signal;

-- name: find_signal
SELECT id FROM dq_signal WHERE key = ?;

-- name: open_signals
SELECT signal.id, signal.key, signal.run, signal.name, signal.payload, signal.sent_at, signal.step
FROM dq_run AS run CROSS JOIN dq_signal AS signal ON signal.run = run.id AND signal.step IS NULL
WHERE run.state IN ('running', 'blocked') ORDER BY signal.id;

-- Waits of unfinished runs: what the supervisor itself ends.
-- name: open_waits
SELECT step.id, step.run, step.function, term.due_at, term.topic
FROM dq_run AS run
CROSS JOIN dq_step AS step ON step.run = run.id
JOIN dq_function AS function ON function.id = step.function AND function.executor = 'dq'
LEFT JOIN dq_term AS term ON term.step = step.id
WHERE run.state IN ('running', 'blocked')
  AND NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = step.id)
ORDER BY step.id;

-- name: upsert_progress
INSERT INTO dq_progress (step, cursor) VALUES (?, ?) ON CONFLICT (step) DO UPDATE SET cursor = excluded.cursor;

-- name: delete_progress
DELETE FROM dq_progress WHERE step = ?;

-- name: progress
SELECT step, cursor FROM dq_progress;

-- A fork copies the steps of a run that have a result: those before ?4 which were asked for by ?5, without those of ?6.
-- Their ids follow one another from ?2 on, in the order of the originals.
-- name: fork_steps
INSERT INTO dq_step (id, run, function, scope, occurrence, fingerprint, args, created_at)
SELECT ?2 - 1 + row_number() OVER (ORDER BY step.id), ?1, step.function, step.scope, step.occurrence, step.fingerprint,
       step.args, step.created_at
FROM dq_step AS step JOIN dq_result AS result ON result.step = step.id
WHERE step.run = ?3 AND step.id < ?4 AND step.created_at <= ?5 AND step.id NOT IN (SELECT value FROM json_each(?6));

-- name: fork_results
INSERT INTO dq_result (step, seq, state, attempt, epoch, pid, began_at, ended_at, payload)
SELECT ?2 - 1 + row_number() OVER (ORDER BY step.id), result.seq, result.state, result.attempt, result.epoch, result.pid,
       result.began_at, result.ended_at, result.payload
FROM dq_step AS step JOIN dq_result AS result ON result.step = step.id
WHERE step.run = ?3 AND step.id < ?4 AND step.created_at <= ?5 AND step.id NOT IN (SELECT value FROM json_each(?6));

-- name: fork_terms
INSERT INTO dq_term (step, due_at, priority, key, topic)
SELECT copied.new, term.due_at, term.priority, term.key, term.topic
FROM (
    SELECT step.id AS old, ?2 - 1 + row_number() OVER (ORDER BY step.id) AS new
    FROM dq_step AS step JOIN dq_result AS result ON result.step = step.id
    WHERE step.run = ?3 AND step.id < ?4 AND step.created_at <= ?5 AND step.id NOT IN (SELECT value FROM json_each(?6))
) AS copied JOIN dq_term AS term ON term.step = copied.old;

-- name: fork_signals
INSERT INTO dq_signal (id, key, run, name, payload, sent_at, step)
SELECT ?7 - 1 + row_number() OVER (ORDER BY signal.id), copied.new, ?1, signal.name, signal.payload, signal.sent_at,
       copied.new
FROM (
    SELECT step.id AS old, ?2 - 1 + row_number() OVER (ORDER BY step.id) AS new
    FROM dq_step AS step JOIN dq_result AS result ON result.step = step.id
    WHERE step.run = ?3 AND step.id < ?4 AND step.created_at <= ?5 AND step.id NOT IN (SELECT value FROM json_each(?6))
) AS copied JOIN dq_signal AS signal ON signal.step = copied.old;

-- name: set_fork
UPDATE dq_run SET forked_from = ?3, origin = ?8, checkpoint = ?9 WHERE id = ?1;

-- name: fork_size
SELECT count(*), coalesce(max(result.seq), 0), count(signal.id)
FROM dq_step AS step
JOIN dq_result AS result ON result.step = step.id
LEFT JOIN dq_signal AS signal ON signal.step = step.id
WHERE step.run = ?1 AND step.id < ?2 AND step.created_at <= ?3 AND step.id NOT IN (SELECT value FROM json_each(?4));

-- name: last_checkpoint
SELECT coalesce(max(step.id), 0)
FROM dq_step AS step
JOIN dq_function AS function ON function.id = step.function AND function.name = 'dq:checkpoint'
WHERE step.run = ? AND step.id < ? AND step.created_at <= ?;

-- name: nth_call
SELECT id FROM dq_step
WHERE run = ? AND function IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT 1 OFFSET ?;

-- name: run_of_step
SELECT run FROM dq_step WHERE id = ? AND run IS NOT NULL;

-- name: bad_steps
SELECT step.id, step.function, result.seq, result.state, result.payload, result.ended_at
FROM dq_step AS step JOIN dq_result AS result ON result.step = step.id
WHERE step.run = ? AND result.state <> 'completed' ORDER BY step.id;

-- name: last_good_seq
SELECT coalesce(max(result.seq), 0)
FROM dq_step AS step JOIN dq_result AS result ON result.step = step.id
WHERE step.run = ? AND result.state <> 'cancelled';

-- name: undone_steps
SELECT count(*) FROM dq_step WHERE run = ? AND substr(scope, -1) = '!';

-- name: runs_before
SELECT run.id, run.name, function.name, run.state, coalesce(run.parent, 0), run.created_at, coalesce(run.ended_at, 0)
FROM dq_run AS run JOIN dq_function AS function ON function.id = run.function
WHERE run.id < ?1 AND run.state IN (SELECT value FROM json_each(?2)) ORDER BY run.id DESC LIMIT ?3;

-- name: published_since
SELECT step.id, term.topic, step.args, step.created_at
FROM dq_step AS step
JOIN dq_term AS term ON term.step = step.id
JOIN dq_function AS function ON function.id = step.function AND function.name = 'dq:publish'
WHERE step.run = ? AND step.id > ? ORDER BY step.id LIMIT ?;

-- name: last_published
SELECT step.id, term.topic, step.args, step.created_at
FROM dq_step AS step
JOIN dq_term AS term ON term.step = step.id AND term.topic = ?2
JOIN dq_function AS function ON function.id = step.function AND function.name = 'dq:publish'
WHERE step.run = ?1 ORDER BY step.id DESC LIMIT 1;

-- name: open_batches
SELECT first, last FROM dq_batch ORDER BY first;

-- name: open_steps
SELECT id, function, args FROM dq_step AS step
WHERE id > ? AND id <= ? AND run IS NULL
  AND NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = step.id)
ORDER BY id LIMIT ?;

-- name: open_functions
SELECT function, min(id), max(id), count(*) FROM dq_step AS step
WHERE id >= ? AND id <= ? AND run IS NULL
  AND NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = step.id)
GROUP BY function ORDER BY min(id);

-- name: open_flow_steps
SELECT id, function, args FROM dq_step AS step
WHERE run = ? AND function = ? AND id > ? AND id <= ?
  AND NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = step.id)
ORDER BY id LIMIT ?;

-- name: open_flow_functions
SELECT step.run, step.function, min(step.id), max(step.id), count(*)
FROM dq_run AS run CROSS JOIN dq_step AS step ON step.run = run.id
WHERE run.state IN ('running', 'blocked')
  AND NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = step.id)
GROUP BY step.run, step.function ORDER BY min(step.id);

-- name: open_ids
SELECT id FROM dq_step AS step
WHERE run = ? AND NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = step.id)
ORDER BY id;

-- name: step_function
SELECT function FROM dq_step WHERE id = ?;

-- name: next_seq
SELECT max(coalesce(max(result.seq), 0), coalesce(run.cancel_seq, 0)) + 1
FROM dq_step AS this
JOIN dq_run AS run ON run.id = this.run
JOIN dq_step AS step ON step.run = this.run
LEFT JOIN dq_result AS result ON result.step = step.id
WHERE this.id = ? GROUP BY this.run;

-- name: known_steps
SELECT id FROM dq_step WHERE id IN (SELECT value FROM json_each(?));

-- name: results
SELECT step, state, payload, began_at, (ended_at - began_at) * 1000
FROM dq_result WHERE step IN (SELECT value FROM json_each(?)) ORDER BY step;

-- name: open_claims
SELECT epoch, slot, pid, steps FROM dq_claim ORDER BY epoch;

-- name: attempts
SELECT step, max(attempt), sum(charged)
FROM dq_attempt WHERE step IN (SELECT value FROM json_each(?)) GROUP BY step;

-- name: failures
SELECT step, count(*), coalesce(min(began_at), min(ended_at)), max(iif(outcome = 'failed', ended_at, 0)),
       max(iif(outcome = 'timed_out', ended_at, 0))
FROM dq_attempt WHERE step IN (SELECT value FROM json_each(?)) AND outcome IN ('failed', 'timed_out') GROUP BY step;

-- name: attempt_causes
SELECT step, attempt, epoch, outcome, pid, charged, cause, ended_at, began_at
FROM dq_attempt WHERE step = ? ORDER BY ended_at, epoch;

-- name: upsert_schedule
INSERT INTO dq_schedule (id, function, args, fingerprint, expression, tz, catch_up, overlap, paused, next_at, last_at,
                         last_run, waiting_at, skipped, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    function = excluded.function, args = excluded.args, fingerprint = excluded.fingerprint,
    expression = excluded.expression, tz = excluded.tz, catch_up = excluded.catch_up, overlap = excluded.overlap,
    next_at = excluded.next_at;

-- name: move_schedule
UPDATE dq_schedule SET paused = ?, next_at = ?, last_at = ?, last_run = ?, waiting_at = ?, skipped = ? WHERE id = ?;

-- name: delete_schedule
DELETE FROM dq_schedule WHERE id = ?;

-- name: schedules
SELECT id, function, args, fingerprint, expression, tz, catch_up, overlap, paused, next_at, last_at, last_run, waiting_at,
       skipped, created_at
FROM dq_schedule ORDER BY id;

-- What follows walks whole tables, a page at a time by their primary keys: to delete, and to find side files.

-- name: last_run
SELECT max(id) FROM dq_run;

-- name: last_step
SELECT max(id) FROM dq_step;

-- name: last_result
SELECT max(step) FROM dq_result;

-- name: last_progress
SELECT max(step) FROM dq_progress;

-- name: page_of_runs
SELECT max(id) FROM (SELECT id FROM dq_run WHERE id > ? ORDER BY id LIMIT ?);

-- name: page_of_steps
SELECT max(id) FROM (SELECT id FROM dq_step WHERE id > ? ORDER BY id LIMIT ?);

-- name: page_of_results
SELECT max(step) FROM (SELECT step FROM dq_result WHERE step > ? ORDER BY step LIMIT ?);

-- name: page_of_signals
SELECT max(id) FROM (SELECT id FROM dq_signal WHERE id > ? ORDER BY id LIMIT ?);

-- name: page_of_progress
SELECT max(step) FROM (SELECT step FROM dq_progress WHERE step > ? ORDER BY step LIMIT ?);

-- name: old_runs
SELECT id, coalesce(parent, 0) FROM dq_run
WHERE id > ?1 AND id <= ?2 AND ended_at < ?3 AND (?4 = 0 OR state <> 'failed') ORDER BY id;

-- Steps submitted alone that ended long ago, and steps whose run is gone; not those whose result others may still share.
-- name: old_steps
SELECT step.id
FROM dq_step AS step
LEFT JOIN dq_result AS result ON result.step = step.id
LEFT JOIN dq_term AS term ON term.step = step.id
LEFT JOIN dq_run AS run ON run.id = step.run
WHERE step.id > ?1 AND step.id <= ?2 AND coalesce(term.dedup_until, 0) <= ?5 AND iif(
    step.run IS NULL,
    result.ended_at < ?3 AND (?4 = 0 OR result.state NOT IN ('failed', 'dead')),
    run.id IS NULL)
ORDER BY step.id;

-- name: stray_signals
SELECT id FROM dq_signal AS signal
WHERE id > ? AND id <= ? AND NOT EXISTS (SELECT 1 FROM dq_run AS run WHERE run.id = signal.run) ORDER BY id;

-- name: run_parent
SELECT parent FROM dq_run WHERE id = ?;

-- name: purge_run
DELETE FROM dq_run WHERE id = ? AND ended_at IS NOT NULL;

-- The end of a child run that its parent did not wait for stands under an id that may be no step's.
-- name: purge_stray_result
DELETE FROM dq_result WHERE step = ?1 AND NOT EXISTS (SELECT 1 FROM dq_step WHERE id = ?1);

-- A child run and the step that called it have one id, and so has what is known of their attempts.
-- name: purge_attempts
DELETE FROM dq_attempt WHERE step = ?1 AND NOT EXISTS (SELECT 1 FROM dq_run WHERE id = ?1);

-- name: purge_letter
DELETE FROM dq_letter WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM dq_run WHERE id = ?1);

-- name: purge_step
DELETE FROM dq_step WHERE id = ?;

-- name: purge_result
DELETE FROM dq_result WHERE step = ?;

-- name: purge_term
DELETE FROM dq_term WHERE step = ?;

-- name: purge_signal
DELETE FROM dq_signal WHERE id = ?;

-- A payload that names a side file is short and begins with an f; the length is known without reading what is long.
-- name: run_arguments_aside
SELECT args FROM dq_run WHERE id > ? AND id <= ? AND length(args) < 512 AND substr(args, 1, 1) = x'66';

-- name: run_payloads_aside
SELECT payload FROM dq_run WHERE id > ? AND id <= ? AND length(payload) < 512 AND substr(payload, 1, 1) = x'66';

-- name: step_arguments_aside
SELECT args FROM dq_step WHERE id > ? AND id <= ? AND length(args) < 512 AND substr(args, 1, 1) = x'66';

-- name: results_aside
SELECT payload FROM dq_result WHERE step > ? AND step <= ? AND length(payload) < 512 AND substr(payload, 1, 1) = x'66';

-- name: signals_aside
SELECT payload FROM dq_signal WHERE id > ? AND id <= ? AND length(payload) < 512 AND substr(payload, 1, 1) = x'66';

-- name: progress_aside
SELECT cursor FROM dq_progress WHERE step > ? AND step <= ? AND length(cursor) < 512 AND substr(cursor, 1, 1) = x'66';

-- name: schedules_aside
SELECT args FROM dq_schedule WHERE length(args) < 512 AND substr(args, 1, 1) = x'66';

-- The same for some rows by their ids.
-- name: files_of_runs
SELECT args FROM dq_run
WHERE id IN (SELECT value FROM json_each(?1)) AND length(args) < 512 AND substr(args, 1, 1) = x'66'
UNION ALL
SELECT payload FROM dq_run
WHERE id IN (SELECT value FROM json_each(?1)) AND length(payload) < 512 AND substr(payload, 1, 1) = x'66';

-- name: files_of_steps
SELECT args FROM dq_step
WHERE id IN (SELECT value FROM json_each(?1)) AND length(args) < 512 AND substr(args, 1, 1) = x'66'
UNION ALL
SELECT payload FROM dq_result
WHERE step IN (SELECT value FROM json_each(?1)) AND length(payload) < 512 AND substr(payload, 1, 1) = x'66'
UNION ALL
SELECT cursor FROM dq_progress
WHERE step IN (SELECT value FROM json_each(?1)) AND length(cursor) < 512 AND substr(cursor, 1, 1) = x'66';

-- name: files_of_signals
SELECT payload FROM dq_signal
WHERE id IN (SELECT value FROM json_each(?1)) AND length(payload) < 512 AND substr(payload, 1, 1) = x'66';

-- Dead letters: what ended badly and whether somebody has dealt with it.

-- name: insert_letter
INSERT INTO dq_letter (id, state, successor, at) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, successor = excluded.successor, at = excluded.at;

-- name: letter
SELECT state, successor FROM dq_letter WHERE id = ?;

-- name: step_record
SELECT step.run, step.function, step.args, coalesce(result.state, ''), coalesce(run.name, '')
FROM dq_step AS step
LEFT JOIN dq_result AS result ON result.step = step.id
LEFT JOIN dq_run AS run ON run.id = step.run
WHERE step.id = ?;

-- name: page_of_last_results
SELECT min(step) FROM (SELECT step FROM dq_result WHERE step < ? ORDER BY step DESC LIMIT ?);

-- name: page_of_last_runs
SELECT min(id) FROM (SELECT id FROM dq_run WHERE id < ? ORDER BY id DESC LIMIT ?);

-- A dead step of a run that somebody has dealt with is dealt with too.
-- name: dead_steps
SELECT step.id, coalesce(run.name, ''), function.name, result.state, coalesce(letter.state, of_run.state, 'open'),
       letter.successor, result.attempt, result.pid, step.created_at, result.ended_at, result.payload
FROM dq_result AS result
JOIN dq_step AS step ON step.id = result.step
JOIN dq_function AS function ON function.id = step.function
LEFT JOIN dq_run AS run ON run.id = step.run
LEFT JOIN dq_letter AS letter ON letter.id = step.id
LEFT JOIN dq_letter AS of_run ON of_run.id = step.run
WHERE result.step >= ?1 AND result.step < ?2
  AND (result.state = 'dead' OR (result.state = 'failed' AND step.run IS NULL))
ORDER BY result.step DESC;

-- A child run is a letter of its own only where nobody has waited for it: a result without a place in its parent's order.
-- name: dead_runs
SELECT run.id, run.name, function.name, run.state, coalesce(letter.state, 'open'), letter.successor, 0, 0,
       run.created_at, run.ended_at, run.payload
FROM dq_run AS run
JOIN dq_function AS function ON function.id = run.function
LEFT JOIN dq_letter AS letter ON letter.id = run.id
LEFT JOIN dq_result AS told ON told.step = run.id
WHERE run.id >= ?1 AND run.id < ?2 AND run.state = 'failed' AND (run.parent IS NULL OR told.seq IS NULL)
ORDER BY run.id DESC;

-- What the doctor asks.

-- Runs that go on, none of whose steps is open, and when they were heard of last.
-- name: quiet_runs
SELECT run.name, max(run.created_at, coalesce(max(result.ended_at), 0)) AS heard
FROM dq_run AS run
LEFT JOIN dq_step AS step ON step.run = run.id
LEFT JOIN dq_result AS result ON result.step = step.id
WHERE run.state IN ('running', 'blocked') AND run.state = 'running'
GROUP BY run.id HAVING count(step.id) = count(result.step) AND heard < ? ORDER BY heard;

-- name: blocked_runs
SELECT name, coalesce(reason, '') FROM dq_run WHERE state IN ('running', 'blocked') AND state = 'blocked' ORDER BY id;

-- name: unfinished_workflows
SELECT function, count(*) FROM dq_run WHERE state IN ('running', 'blocked') GROUP BY function;

-- name: parked_steps
SELECT term.step, function.name
FROM dq_term AS term
JOIN dq_step AS step ON step.id = term.step
JOIN dq_function AS function ON function.id = step.function
WHERE term.due_at >= ? AND NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = term.step) ORDER BY term.step;

-- name: claim_times
SELECT epoch, claimed_at FROM dq_claim ORDER BY epoch;

-- name: latest_end
SELECT coalesce(max(ended_at), 0) FROM (SELECT ended_at FROM dq_result WHERE step < ? ORDER BY step DESC LIMIT ?);

-- name: latest_begin
SELECT max(
    (SELECT coalesce(max(created_at), 0) FROM (SELECT created_at FROM dq_step WHERE id < ?1 ORDER BY id DESC LIMIT ?2)),
    (SELECT coalesce(max(created_at), 0) FROM (SELECT created_at FROM dq_run WHERE id < ?1 ORDER BY id DESC LIMIT ?2))
);

-- name: distant_terms
SELECT count(*), max(term.due_at), min(term.step)
FROM dq_term AS term JOIN dq_step AS step ON step.id = term.step
WHERE term.due_at BETWEEN ? AND ? AND NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = term.step);

-- What follows is for people: it reads the views.

-- name: list_schedules
SELECT schedule.id, function.name, expression, tz, catch_up, overlap, paused, next_at, last_at, last_run, waiting_at, skipped,
       schedule.created_at
FROM dq_schedule AS schedule LEFT JOIN dq_function AS function ON function.id = schedule.function ORDER BY schedule.id;

-- name: list_runs
SELECT id, name, workflow, state, steps, done, created_at, ended_at, reason
FROM dq_runs WHERE id < ? AND (?2 OR state IN ('running', 'blocked')) ORDER BY id DESC LIMIT ?3;

-- name: show_run
SELECT id, name, workflow, state, steps, done, created_at, ended_at, reason FROM dq_runs WHERE name = ?;

-- name: run_record
SELECT args, payload FROM dq_run WHERE name = ?;

-- name: list_run_steps
SELECT id, name, run, state, attempt, pid, epoch, created_at, claimed_at, began_at, ended_at
FROM dq_steps WHERE run_id = ? AND id > ? ORDER BY id LIMIT ?;

-- name: list_open_steps
SELECT id, name, run, state, attempt, pid, epoch, created_at, claimed_at, began_at, ended_at
FROM dq_steps WHERE id > ? AND id <= ? AND state IN ('pending', 'claimed') ORDER BY id LIMIT ?;

-- name: show_step
SELECT id, name, run, state, attempt, pid, epoch, created_at, claimed_at, began_at, ended_at FROM dq_steps WHERE id = ?;

-- name: list_attempts
SELECT step, attempt, epoch, outcome, pid, charged, cause, began_at, ended_at
FROM dq_attempts WHERE step = ? ORDER BY attempt, epoch;

-- name: count_runs
SELECT state, count(*) FROM dq_run GROUP BY state;

-- name: count_steps
SELECT (SELECT count(*) FROM dq_step), (SELECT count(*) FROM dq_result),
       (SELECT coalesce(sum(json_array_length(steps)), 0) FROM dq_claim);
