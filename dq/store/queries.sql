-- Every statement that dq runs, named. Parameters are numbered in the order of the rows in group.py.

-- name: begin
BEGIN IMMEDIATE;

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: count_schema
SELECT count(*) FROM sqlite_schema;

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

-- name: set_checkpoint
UPDATE dq_run SET checkpoint = ? WHERE id = ?;

-- name: checkpoint_at
SELECT args, scope FROM dq_step WHERE id = ?;

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
INSERT INTO dq_attempt (step, attempt, epoch, outcome, pid, charged, cause, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

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
       parent, deadline, cancel_seq, cancel_at, cancel_cause, cancel_key, checkpoint, scheduled_at
FROM dq_run WHERE state IN ('running', 'blocked') ORDER BY id;

-- name: find_run
SELECT id, name, function, args, fingerprint, state, created_at, ended_at, payload, reason,
       parent, deadline, cancel_seq, cancel_at, cancel_cause, cancel_key, checkpoint, scheduled_at
FROM dq_run WHERE name = ?;

-- name: run_by_id
SELECT id, name, function, args, fingerprint, state, created_at, ended_at, payload, reason,
       parent, deadline, cancel_seq, cancel_at, cancel_cause, cancel_key, checkpoint, scheduled_at
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
INSERT INTO dq_term (step, due_at, priority, key, dedup, dedup_until, topic) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (step) DO UPDATE SET due_at = excluded.due_at, priority = excluded.priority;

-- name: terms
SELECT step, due_at, priority, key, dedup, dedup_until, topic
FROM dq_term WHERE step IN (SELECT value FROM json_each(?));

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
SELECT step, cursor FROM dq_progress WHERE step IN (SELECT value FROM json_each(?));

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

-- name: step_function
SELECT function FROM dq_step WHERE id = ?;

-- name: next_seq
SELECT coalesce(max(result.seq), 0) + 1
FROM dq_step AS this
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

-- name: attempt_causes
SELECT step, attempt, epoch, outcome, pid, charged, cause, ended_at
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
