-- The statements of batch jobs.

-- name: batch_jobs
-- Batch jobs by their numbers from behind $3 on: of all, of teamspace $1, or the one of that name; with the names of the
-- schedules that run each.
SELECT batch_job.*, ARRAY(
    SELECT schedule.name FROM schedule
    WHERE schedule.teamspace = batch_job.teamspace
        AND schedule.submission::json ->> 'kind' = 'batch' AND schedule.submission::json ->> 'batch_job' = batch_job.name
    ORDER BY schedule.name
) AS schedules
FROM batch_job
WHERE ($1::text IS NULL OR teamspace = $1) AND ($2::text IS NULL OR name = $2) AND id > $3
ORDER BY id LIMIT $4

-- name: batch_job_by_id
SELECT *, '{}'::text[] AS schedules FROM batch_job WHERE id = $1

-- name: lock_batch
-- Whoever changes or reads the books of teamspace $1 in order to decide comes one after the other.
SELECT pg_advisory_xact_lock(1818583394, hashtext($1))

-- name: count_batch_jobs
SELECT count(*) FROM batch_job WHERE teamspace = $1

-- name: add_batch_job
INSERT INTO batch_job (
    teamspace, name, api, timeout_ms, retries, retry_timeouts, stall_after_seconds, interpreter, mail_success, mail_failure
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (teamspace, name) DO NOTHING RETURNING id

-- name: change_batch_job
UPDATE batch_job
SET api = $2, timeout_ms = $3, retries = $4, retry_timeouts = $5, stall_after_seconds = $6, interpreter = $7,
    mail_success = $8, mail_failure = $9
WHERE id = $1 RETURNING id

-- name: move_batch_job
-- Into state $3, from one of $2.
UPDATE batch_job SET state = $3 WHERE id = $1 AND state = ANY($2::text[]) RETURNING id

-- name: delete_batch_job
-- With its code, its settings and its schedules; what has become of its runs stays with their jobs.
WITH gone AS (
    DELETE FROM batch_job WHERE id = $1 RETURNING id, teamspace, name
), versions AS (
    DELETE FROM batch_version USING gone WHERE batch_version.batch_job = gone.id
), settings AS (
    DELETE FROM batch_setting USING gone WHERE batch_setting.batch_job = gone.id
), schedules AS (
    DELETE FROM schedule USING gone
    WHERE schedule.teamspace = gone.teamspace
        AND schedule.submission::json ->> 'kind' = 'batch' AND schedule.submission::json ->> 'batch_job' = gone.name
    RETURNING schedule.name
)
SELECT schedules.name FROM gone LEFT JOIN schedules ON true

-- name: add_batch_version
-- A number higher than the last one.
WITH present AS (
    UPDATE batch_job SET version = version + 1 WHERE id = $1 RETURNING id, version
)
INSERT INTO batch_version (batch_job, version, archive, sha256, files, takes_event, requirements, uid)
SELECT id, version, $2, $3, $4, $5, $6, $7 FROM present RETURNING version

-- name: batch_versions
SELECT version, length(archive) AS size_bytes, sha256, files, requirements IS NOT NULL AS requirements, uploaded
FROM batch_version WHERE batch_job = $1 ORDER BY version DESC

-- name: batch_version
SELECT version, archive, sha256, requirements FROM batch_version WHERE batch_job = $1 AND version = $2

-- name: batch_digests
SELECT version.sha256 FROM batch_job JOIN batch_version AS version
    ON version.batch_job = batch_job.id AND version.version = batch_job.version
UNION
SELECT version.sha256 FROM batch_run AS run JOIN batch_version AS version
    ON version.batch_job = run.batch_job AND version.version = run.version
WHERE run.started IS NOT NULL AND run.ended IS NULL

-- name: batch_settings
SELECT name, secret, sealed FROM batch_setting WHERE batch_job = $1 ORDER BY name

-- name: set_batch_setting
INSERT INTO batch_setting (batch_job, name, secret, sealed) VALUES ($1, $2, $3, $4)
ON CONFLICT (batch_job, name) DO UPDATE SET secret = excluded.secret, sealed = excluded.sealed

-- name: drop_batch_settings
DELETE FROM batch_setting WHERE batch_job = $1 AND name = ANY($2::text[])

-- name: invoke_batch
-- Job $1 is to run batch job $2 of teamspace $3; part of its admission.
INSERT INTO batch_run (job, batch_job, teamspace, due, token) VALUES ($1, $2, $3, $4, $5)

-- name: batch_books
-- What counts in days from the moment $2 on: the runs of a teamspace that have started.
SELECT job, batch_job, started, ended IS NOT NULL AS ended FROM batch_run WHERE teamspace = $1 AND started >= $2

-- name: batch_used
-- What a teamspace has used from the quarter of an hour $2 to before $3, by batch job; its runs that wait to start; and
-- those that have started, of the tokens $4 or since $5.
SELECT batch_job, NULL::bytea AS token, sum(executions)::bigint AS executions, sum(recorded_ms)::bigint AS recorded_ms,
    sum(in_progress_ms)::bigint AS in_progress_ms
FROM batch_quarter WHERE teamspace = $1 AND quarter >= $2 AND quarter < $3 GROUP BY batch_job
UNION ALL
SELECT run.batch_job, run.token, 0, 0, 0 FROM batch_run AS run
WHERE run.teamspace = $1 AND run.started IS NULL AND run.ended IS NULL
    AND EXISTS (SELECT FROM job WHERE job.id = run.job)
UNION ALL
SELECT batch_job, token, 1, 0, 0 FROM batch_run WHERE token = ANY($4::bytea[]) AND started IS NOT NULL
UNION ALL
SELECT batch_job, token, 1, 0, 0 FROM batch_run WHERE teamspace = $1 AND started >= $5

-- name: oldest_open_run
SELECT min(started) FROM batch_run WHERE teamspace = $1 AND started IS NOT NULL AND ended IS NULL

-- name: batch_attempts
SELECT job, retry, began, timeout_ms, cap_ms, real_ms, ending FROM batch_attempt
WHERE job = ANY($1::bigint[]) ORDER BY job, retry

-- name: batch_run
SELECT run.*, coalesce(batch_job.name, '') AS name FROM batch_run AS run
LEFT JOIN batch_job ON batch_job.id = run.batch_job
WHERE run.job = $1

-- name: batch_run_by_token
SELECT run.*, coalesce(batch_job.name, '') AS name FROM batch_run AS run
LEFT JOIN batch_job ON batch_job.id = run.batch_job
WHERE run.token = $1

-- name: unended_batch_runs
SELECT run.*, coalesce(batch_job.name, '') AS name FROM batch_run AS run
LEFT JOIN batch_job ON batch_job.id = run.batch_job
WHERE run.started IS NOT NULL AND run.ended IS NULL AND NOT EXISTS (SELECT FROM job WHERE job.id = run.job)

-- name: expected_batch_runs
SELECT job, due FROM batch_run AS run
WHERE started IS NULL AND ended IS NULL AND due IS NOT NULL AND EXISTS (SELECT FROM job WHERE job.id = run.job)
ORDER BY due LIMIT 1000

-- name: job_is_live
SELECT EXISTS (SELECT FROM job WHERE id = $1)

-- name: batch_runs
-- Newest first, from below $4 on: of all, of teamspace $1, or of one of its batch jobs.
SELECT run.*, coalesce(batch_job.name, '') AS name FROM batch_run AS run
LEFT JOIN batch_job ON batch_job.id = run.batch_job
WHERE ($1::text IS NULL OR run.teamspace = $1) AND ($2::bigint IS NULL OR run.batch_job = $2)
    AND ($3::bigint IS NULL OR run.job < $3)
ORDER BY run.job DESC LIMIT $4

-- name: start_batch_run
UPDATE batch_run SET started = $2, version = $3 WHERE job = $1

-- name: begin_batch_attempt
INSERT INTO batch_attempt (job, retry, began, timeout_ms, cap_ms) VALUES ($1, $2, $3, $4, $5)

-- name: record_batch_attempt
UPDATE batch_attempt SET real_ms = $3, ending = $4 WHERE job = $1 AND retry = $2 AND real_ms IS NULL

-- name: end_batch_run
UPDATE batch_run SET ended = $2, state = $3, reason = $4, message = $5, result = $6 WHERE job = $1

-- name: tell_of_failing
-- A notice that job $1, which fails, is the fifth run of batch job $2 in a row to do so, and not yet the sixth.
WITH newest AS (
    SELECT state, row_number() OVER (ORDER BY ended DESC, job DESC) AS place FROM batch_run
    WHERE batch_job = $2 AND state IN ('completed', 'failed') ORDER BY ended DESC, job DESC LIMIT 6
)
INSERT INTO notice (job, teamspace, event, medium, target)
SELECT wish.job, $3, 'failing', wish.medium, wish.target FROM notice_wish AS wish
WHERE wish.job = $1 AND 'failing' = ANY (wish.events)
    AND (SELECT count(*) FROM newest WHERE place <= 5 AND state = 'failed') = 5
    AND NOT EXISTS (SELECT FROM newest WHERE place = 6 AND state = 'failed')

-- name: bury_batch_run
UPDATE batch_run SET ended = $2 WHERE job = $1 AND ended IS NULL

-- name: keep_batch_mail
-- What attempt $2 of the run of job $1 has written by question $3, for each of the recipients $8.
WITH mail AS (
    INSERT INTO batch_mail (job, retry, question, subject, body, html) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT DO NOTHING RETURNING id
)
INSERT INTO notice (job, teamspace, event, medium, target, batch_mail)
SELECT $1, $7, 'mail', 'mail', target, mail.id FROM mail CROSS JOIN unnest($8::text[]) AS given (target)

-- name: batch_mailed
SELECT question FROM batch_mail WHERE job = $1 AND retry = $2

-- name: batch_called
SELECT DISTINCT lead FROM call WHERE job = $1 AND lead < 0 AND lead BETWEEN $2 AND $3 AND state <> 'unsent'

-- name: add_batch_lines
INSERT INTO batch_line (job, retry, n, at, text)
SELECT $1, $2, n, at, text FROM unnest($3::integer[], $4::bigint[], $5::text[]) AS given (n, at, text)
ON CONFLICT DO NOTHING

-- name: last_batch_line
SELECT coalesce(max(n), 0) FROM batch_line WHERE job = $1 AND retry = $2

-- name: batch_lines
SELECT n, at, text FROM batch_line WHERE job = $1 AND retry = $2 AND n > $3::bigint ORDER BY n LIMIT $4

-- name: last_batch_lines
SELECT n, at, text FROM batch_line WHERE job = $1 AND retry = $2 AND n < $3::bigint ORDER BY n DESC LIMIT $4

-- name: drop_old_batch_quarters
DELETE FROM batch_quarter WHERE quarter < $1

-- name: drop_old_batch_runs
-- Those of jobs that nobody remembers any more.
WITH gone AS (
    DELETE FROM batch_run WHERE coalesce(ended, started, 0) < $1
        AND NOT EXISTS (SELECT FROM job WHERE job.id = batch_run.job)
        AND NOT EXISTS (SELECT FROM job_ended WHERE job_ended.id = batch_run.job)
    RETURNING job
), attempts AS (
    DELETE FROM batch_attempt USING gone WHERE batch_attempt.job = gone.job
), mails AS (
    DELETE FROM batch_mail USING gone WHERE batch_mail.job = gone.job
)
DELETE FROM batch_line USING gone WHERE batch_line.job = gone.job
