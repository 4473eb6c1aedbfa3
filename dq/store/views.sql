-- What people ask, with any SQLite tool: docs/sql.md tells the columns.

-- One row for each run. `steps` have been asked for so far, `done` of them have ended.
CREATE VIEW dq_runs AS
SELECT
    run.id,
    run.name,
    function.name AS workflow,
    run.state,
    (SELECT count(*) FROM dq_step AS step WHERE step.run = run.id) AS steps,
    (SELECT count(*) FROM dq_step AS step JOIN dq_result AS result ON result.step = step.id
      WHERE step.run = run.id) AS done,
    run.created_at,
    run.ended_at,
    run.reason
FROM dq_run AS run
LEFT JOIN dq_function AS function ON function.id = run.function;

-- One row for each step. `run` and `run_id` are NULL for a step submitted alone; `attempt` is the latest one, 0 before
-- the first; `pid` and `epoch` are of the worker and the claim that ended it or hold it now.
CREATE VIEW dq_steps AS
WITH claimed AS (
    SELECT
        CAST(entry.value ->> 0 AS INTEGER) AS step,
        CAST(entry.value ->> 1 AS INTEGER) AS attempt,
        max(claim.epoch) AS epoch,
        claim.pid AS pid,
        claim.claimed_at AS claimed_at
    FROM dq_claim AS claim, json_each(claim.steps) AS entry
    GROUP BY 1
)
SELECT
    step.id,
    function.name,
    run.name AS run,
    step.run AS run_id,
    step.scope,
    step.occurrence,
    coalesce(result.state, iif(claimed.step IS NULL, 'pending', 'claimed')) AS state,
    coalesce(result.attempt, claimed.attempt,
             (SELECT max(attempt.attempt) FROM dq_attempt AS attempt WHERE attempt.step = step.id), 0) AS attempt,
    coalesce(result.pid, claimed.pid) AS pid,
    coalesce(result.epoch, claimed.epoch) AS epoch,
    result.seq,
    step.created_at,
    iif(result.step IS NULL, claimed.claimed_at, NULL) AS claimed_at,
    result.began_at,
    result.ended_at
FROM dq_step AS step
LEFT JOIN dq_function AS function ON function.id = step.function
LEFT JOIN dq_run AS run ON run.id = step.run
LEFT JOIN dq_result AS result ON result.step = step.id
LEFT JOIN claimed ON claimed.step = step.id;

-- One row for each attempt: those that ended their step, those that did not, and those that are claimed now (their
-- `outcome` and `ended_at` are NULL). For a claimed one `began_at` is the time of the claim.
CREATE VIEW dq_attempts AS
SELECT step, attempt, epoch, state AS outcome, pid, 0 AS charged, NULL AS cause, began_at, ended_at
FROM dq_result AS result
WHERE state <> 'dead' AND attempt > 0
  AND NOT EXISTS (SELECT 1 FROM dq_attempt AS attempt
                   WHERE attempt.step = result.step AND attempt.attempt = result.attempt
                     AND attempt.epoch = result.epoch)
UNION ALL
SELECT step, attempt, epoch, outcome, pid, charged, cause, began_at, ended_at
FROM dq_attempt
UNION ALL
SELECT CAST(entry.value ->> 0 AS INTEGER), CAST(entry.value ->> 1 AS INTEGER), claim.epoch, NULL, claim.pid, 0, NULL,
       claim.claimed_at, NULL
FROM dq_claim AS claim, json_each(claim.steps) AS entry
WHERE NOT EXISTS (SELECT 1 FROM dq_result AS result WHERE result.step = CAST(entry.value ->> 0 AS INTEGER))
  AND NOT EXISTS (SELECT 1 FROM dq_attempt AS attempt
                   WHERE attempt.step = CAST(entry.value ->> 0 AS INTEGER)
                     AND attempt.attempt = CAST(entry.value ->> 1 AS INTEGER) AND attempt.epoch = claim.epoch);
