-- Every statement that the store sends, by name. A line `-- name: …` opens one, the comment lines below it describe
-- it. What inserts names its columns: COPY of many rows takes them from there.

-- name: fence
-- The first statement of every write transaction: proves that this daemon ($1: its epoch) is still the owner, keeps it
-- the owner until the transaction ends, and returns the transaction's id, by which its outcome can be looked up.
SELECT pg_current_xact_id()::text FROM leader WHERE epoch = $1 FOR SHARE

-- name: bump_epoch
-- The first statement of a take-over. Waits for write transactions of the owner before; none of them can begin
-- afterwards. Tells where that owner lived, null where there was none, and whether it ended in order.
UPDATE leader SET epoch = before.epoch + 1, owner = $1, place = $2, orderly = false, taken = clock_timestamp()
FROM (SELECT epoch, place, orderly FROM leader FOR UPDATE) AS before
RETURNING leader.epoch, CASE WHEN before.epoch > 0 THEN before.place END AS place_before, before.orderly

-- name: end_in_order
UPDATE leader SET orderly = true WHERE epoch = $1

-- name: crashed_jobs
-- The jobs that ran when the daemon died, with how far they had come; the calls $1 were out.
SELECT slot.job, attempt.done + attempt.failed + attempt.skipped + attempt.unknown AS settled,
    EXISTS (SELECT FROM call WHERE call.id = ANY ($1::bigint[]) AND call.job = slot.job) AS in_flight
FROM running_slot AS slot JOIN attempt ON attempt.job = slot.job

-- name: owner
-- Who took over last, for people; nobody as long as that was epoch $1, ours.
SELECT owner FROM leader WHERE epoch <> $1

-- name: try_own
-- Takes the session lock that keeps a second daemon from starting.
SELECT pg_try_advisory_lock($1)

-- name: own
-- The same, waiting for it.
SELECT pg_advisory_lock($1)

-- name: lock_migrations
SELECT pg_advisory_xact_lock($1)

-- name: holder
-- The name of the daemon whose session holds the lock.
SELECT session.application_name
FROM pg_locks AS lock
JOIN pg_stat_activity AS session ON session.pid = lock.pid
WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
    AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (lock.classid::bigint << 32 | lock.objid::bigint) = $1

-- name: end_holder
-- Ends the session that holds the lock, unless it is $2.
SELECT pg_terminate_backend(lock.pid)
FROM pg_locks AS lock
WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1 AND lock.pid <> $2
    AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (lock.classid::bigint << 32 | lock.objid::bigint) = $1

-- name: end_sessions
-- Ends all sessions of a daemon but this one, with whatever they still have open.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()

-- name: end_other_daemons
-- Ends the sessions of every daemon but the one of this name, with whatever they still have open.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name ~ '^leadline [0-9a-f]{8}$' AND application_name <> $1

-- name: outcome
-- What became of a transaction: committed, aborted, in progress; null where it is too long ago to tell.
SELECT pg_xact_status($1::text::xid8)

-- name: server
-- What the promises rest on.
SELECT current_setting('server_version_num')::integer AS version, current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes, pg_is_in_recovery() AS in_recovery

-- name: rights
-- What this role may do. A schema that it may not even use is not current: it is public then.
SELECT quote_ident(own.rolname) AS role, quote_ident(coalesce(current_schema(), 'public')) AS schema,
    current_setting('server_version_num')::integer AS version, own.rolsuper AS superuser,
    own.rolcreaterole AS makes_roles, own.rolinherit AS inherits,
    has_schema_privilege(coalesce(current_schema(), 'public'), 'CREATE WITH GRANT OPTION')
        AND has_schema_privilege(coalesce(current_schema(), 'public'), 'USAGE WITH GRANT OPTION') AS lends_schema,
    expressions.oid IS NOT NULL AS made,
    coalesce(
        pg_has_role(expressions.oid, 'USAGE') AND pg_has_role(
            expressions.oid,
            CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END
        ),
        false
    ) AS member,
    coalesce(pg_has_role(expressions.oid, 'MEMBER WITH ADMIN OPTION'), false) AS grants
FROM pg_roles AS own LEFT JOIN pg_roles AS expressions ON expressions.rolname = 'leadline_expressions'
WHERE own.rolname = current_user

-- name: register_kinds
-- Gives a number to each kind of job that has none.
INSERT INTO kind (name, family) SELECT * FROM unnest($1::text[], $2::smallint[])
ON CONFLICT (name) DO UPDATE SET family = excluded.family WHERE kind.family <> excluded.family

-- name: close_calls_of_a_crash
-- At a take-over nobody knows how the calls in flight ended, nor that they left any earlier than now.
UPDATE call SET state = 'unknown', cause = 'crash',
    sent = greatest(sent, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
WHERE state = 'sent' RETURNING id

-- name: kinds
SELECT id, name, family FROM kind

-- name: teamspaces
SELECT id, name FROM teamspace ORDER BY id

-- name: slots
SELECT teamspace, family, slot, job FROM running_slot ORDER BY teamspace, family, slot

-- name: accounts
SELECT name, state FROM account ORDER BY name

-- name: pauses
SELECT scope, name FROM pause ORDER BY scope, name

-- name: calls_since
-- Calls sent at $1 or later, and those of $2 at whatever time; what was certainly never sent charges nothing.
SELECT id, job, attempt, account, cost, sent, began, state FROM call WHERE sent >= $1 AND state <> 'unsent'
UNION
SELECT id, job, attempt, account, cost, sent, began, state FROM call WHERE id = ANY ($2::bigint[])
ORDER BY id

-- name: latest
-- The last job, the last call, and the latest instant: that of the last calls, or the database's own clock.
SELECT
    greatest((SELECT max(id) FROM job), (SELECT max(id) FROM job_ended), 0) AS job,
    coalesce((SELECT max(id) FROM call), 0) AS call,
    greatest(
        (SELECT max(sent) FROM call),
        (SELECT max(began) FROM (SELECT began FROM call ORDER BY sent DESC LIMIT 1000) AS recent),
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    ) AS instant

-- name: clock
-- The database's clock, in microseconds of Unix time.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint

-- name: attempted
-- The live jobs that have started.
SELECT job FROM attempt

-- name: live_jobs
-- A page of the queue in order of id, without what only the work itself reads.
SELECT id, ord, teamspace, kind, state, run_at, chain, step, attempt, started, details, stop_on_failure
FROM job WHERE id > $1 ORDER BY id LIMIT $2

-- name: partitions
-- The partitions of what only grows.
SELECT child.relname AS name
FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
WHERE inhparent IN ('job_ended'::regclass, 'job_event'::regclass, 'call'::regclass)

-- name: add_teamspaces
INSERT INTO teamspace (id, name)
VALUES ($1, $2)

-- name: add_jobs
-- New rows of the queue.
INSERT INTO job (id, ord, submitted, run_at, chain, rerun_of, table_id, total, uid, teamspace, step, steps, kind,
    state, stop_on_failure, notify, payload, warnings)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)

-- name: add_ended_jobs
-- Jobs that were admitted and ended in one decision; they were never in the queue's table.
INSERT INTO job_ended (id, ord, submitted, ended, total, done, failed, skipped, unknown, run_at, started, chain,
    rerun_of, table_id, uid, teamspace, step, steps, attempt, kind, state, stop_on_failure, notify, payload, warnings,
    reason, message)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
    $23, $24, $25, $26, $27)

-- name: retire_attempts
-- The last attempts of jobs that end; their counts become the jobs'.
DELETE FROM attempt WHERE job = ANY ($1::bigint[]) RETURNING job, total, done, failed, skipped, unknown

-- name: end_alike_jobs
-- Moves rows of the queue ($1) that all end alike to the ended ones; the payload never leaves the database. Values
-- once rather than in arrays are half the cost.
WITH gone AS (
    DELETE FROM job WHERE id = ANY ($1::bigint[])
)
INSERT INTO job_ended (id, ord, submitted, ended, total, done, failed, skipped, unknown, run_at, started, chain,
    rerun_of, table_id, uid, teamspace, step, steps, attempt, kind, state, stop_on_failure, notify, payload, warnings,
    reason, message)
SELECT id, ord, submitted, $3::bigint, coalesce($7::bigint, total, 0), $8::bigint, $9::bigint, $10::bigint,
    $11::bigint, run_at, coalesce($4::bigint, started), chain, rerun_of, table_id, uid, teamspace, step, steps, attempt,
    kind, $2::smallint, stop_on_failure, notify, payload, warnings, $5::text, $6::text
FROM job WHERE id = ANY ($1::bigint[])

-- name: end_jobs
-- The same for rows that end each in its own way.
WITH finished AS (
    SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
        AS f (id, state, ended, started, reason, message, total, done, failed, skipped, unknown)
), gone AS (
    DELETE FROM job WHERE id = ANY ($1::bigint[])
)
INSERT INTO job_ended (id, ord, submitted, ended, total, done, failed, skipped, unknown, run_at, started, chain,
    rerun_of, table_id, uid, teamspace, step, steps, attempt, kind, state, stop_on_failure, notify, payload, warnings,
    reason, message)
SELECT id, ord, submitted, f.ended, coalesce(f.total, job.total, 0), f.done, f.failed, f.skipped, f.unknown, run_at,
    coalesce(f.started, job.started), chain, rerun_of, table_id, uid, teamspace, step, steps, attempt, kind, f.state,
    stop_on_failure, notify, payload, warnings, f.reason, f.message
FROM finished AS f JOIN job USING (id)

-- name: end_few_jobs
-- All that follows from the ends of a few jobs, in one round trip: the last attempts ($1) go and their counts become the
-- jobs' where the decision knows none; the rows move to the ended ones; the slots ($12) are free. Tells how many jobs
-- and slots it found.
WITH finished AS (
    SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
        AS f (id, state, ended, started, reason, message, total, done, failed, skipped, unknown)
), retired AS (
    DELETE FROM attempt WHERE job = ANY ($1::bigint[]) RETURNING job, total, done, failed, skipped, unknown
), gone AS (
    DELETE FROM job WHERE id = ANY ($1::bigint[])
), moved AS (
    INSERT INTO job_ended (id, ord, submitted, ended, total, done, failed, skipped, unknown, run_at, started, chain,
        rerun_of, table_id, uid, teamspace, step, steps, attempt, kind, state, stop_on_failure, notify, payload,
        warnings, reason, message)
    SELECT id, ord, submitted, f.ended, coalesce(f.total, retired.total, job.total, 0),
        coalesce(f.done, retired.done, 0), coalesce(f.failed, retired.failed, 0),
        coalesce(f.skipped, retired.skipped, 0), coalesce(f.unknown, retired.unknown, 0), run_at,
        coalesce(f.started, job.started), chain, rerun_of, table_id, uid, teamspace, step, steps, attempt, kind,
        f.state, stop_on_failure, notify, payload, warnings, f.reason, f.message
    FROM finished AS f JOIN job USING (id) LEFT JOIN retired ON retired.job = f.id
    RETURNING 1
), freed AS (
    DELETE FROM running_slot USING unnest($12::integer[], $13::smallint[], $14::integer[], $15::bigint[])
        AS given_back (teamspace, family, slot, job)
    WHERE running_slot.teamspace = given_back.teamspace AND running_slot.family = given_back.family
        AND running_slot.slot = given_back.slot AND running_slot.job = given_back.job
    RETURNING 1
)
SELECT (SELECT count(*) FROM moved) AS jobs, (SELECT count(*) FROM freed) AS slots

-- name: begin_few_jobs
-- All that follows from the admissions and starts of a few jobs, in one round trip: rows of new jobs as they are at the
-- end of the decision, rows that have changed ($22), first attempts ($27), slots ($29), lines of stories ($33). Tells
-- how many of the changed ones it found.
WITH admitted AS (
    INSERT INTO job (id, ord, submitted, run_at, chain, rerun_of, table_id, total, uid, teamspace, step, steps, kind,
        state, stop_on_failure, notify, payload, warnings, details, attempt, started)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::integer[], $11::integer[], $12::integer[], $13::smallint[],
        $14::smallint[], $15::boolean[], $16::boolean[], $17::bytea[], $18::bytea[], $19::bytea[], $20::integer[],
        $21::bigint[])
), altered AS (
    UPDATE job
    SET state = changed.state, details = changed.details, attempt = changed.attempt, started = changed.started
    FROM unnest($22::bigint[], $23::smallint[], $24::bytea[], $25::integer[], $26::bigint[])
        AS changed (id, state, details, attempt, started)
    WHERE job.id = changed.id
    RETURNING 1
), begun AS (
    INSERT INTO attempt (job, number) SELECT * FROM unnest($27::bigint[], $28::integer[])
), taken AS (
    INSERT INTO running_slot (teamspace, family, slot, job)
    SELECT * FROM unnest($29::integer[], $30::smallint[], $31::integer[], $32::bigint[])
), told AS (
    INSERT INTO job_event (job, n, at, event, detail)
    SELECT * FROM unnest($33::bigint[], $34::bigint[], $35::bigint[], $36::text[], $37::text[])
)
SELECT count(*) FROM altered

-- name: add_keys
-- Keys of admitted jobs.
INSERT INTO submission_key (key, body_hash, job)
VALUES ($1, $2, $3)

-- name: replace_keys
-- The same where some have expired and make room; one that has not stays, and the caller counts. Twice as slow.
INSERT INTO submission_key (key, body_hash, job)
SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[])
ON CONFLICT (key) DO UPDATE
SET body_hash = excluded.body_hash, job = excluded.job, expires = excluded.expires
WHERE submission_key.expires <= now()

-- name: change_alike_jobs
-- Rows of the queue ($1) that are all alike now.
UPDATE job SET state = $2, details = $3, attempt = $4, started = $5 WHERE id = ANY ($1::bigint[])

-- name: change_jobs
-- Rows of the queue as they are now, each in its own way.
UPDATE job SET state = changed.state, details = changed.details, attempt = changed.attempt, started = changed.started
FROM unnest($1::bigint[], $2::smallint[], $3::bytea[], $4::integer[], $5::bigint[])
    AS changed (id, state, details, attempt, started)
WHERE job.id = changed.id

-- name: add_attempts
-- First attempts.
INSERT INTO attempt (job, number)
VALUES ($1, $2)

-- name: repeat_attempts
-- Another attempt's number retires the one before; counts and checkpoint stay.
UPDATE attempt SET number = begun.number, activity = ''
FROM unnest($1::bigint[], $2::integer[]) AS begun (job, number)
WHERE attempt.job = begun.job AND attempt.number < begun.number

-- name: free_slots
DELETE FROM running_slot USING unnest($1::integer[], $2::smallint[], $3::integer[], $4::bigint[])
    AS freed (teamspace, family, slot, job)
WHERE running_slot.teamspace = freed.teamspace AND running_slot.family = freed.family
    AND running_slot.slot = freed.slot AND running_slot.job = freed.job

-- name: take_slots
INSERT INTO running_slot (teamspace, family, slot, job)
VALUES ($1, $2, $3, $4)

-- name: send_calls
-- Calls that may go out once this has committed.
INSERT INTO call (id, job, lead, sent, attempt, account, cost, credits)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: close_calls
-- Where nobody knows what a call has come to, what it may have come to stays with it.
UPDATE call SET state = closed.state, cause = closed.cause, began = coalesce(closed.began, call.began),
    cost = coalesce(closed.cost, call.cost),
    credits = CASE WHEN closed.state = 'unknown' OR closed.cause = 'broken' THEN call.credits ELSE 0 END
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bytea[]) AS closed (id, state, cause, began, cost)
WHERE call.id = closed.id

-- name: keep_accounts
INSERT INTO account (name, state) SELECT * FROM unnest($1::text[], $2::bytea[])
ON CONFLICT (name) DO UPDATE SET state = excluded.state

-- name: add_pauses
INSERT INTO pause (scope, name) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING

-- name: drop_pauses
DELETE FROM pause USING unnest($1::text[], $2::text[]) AS ended (scope, name)
WHERE pause.scope = ended.scope AND pause.name = ended.name

-- name: add_events
-- Lines of jobs' stories.
INSERT INTO job_event (job, n, at, event, detail)
VALUES ($1, $2, $3, $4, $5)

-- name: lock_attempt
-- The second statement of every work transaction: holds the attempt as it is, so that nothing of a retired one is
-- stored.
SELECT job FROM attempt WHERE job = $1 AND number = $2 FOR NO KEY UPDATE

-- name: known_keys
-- The jobs that stand under these keys ($1, 20 bytes each), live or ended, with the places of the keys, from 0.
SELECT place / 20, known.job, known.body_hash, found.state
FROM generate_series(1, length($1::bytea), 20) AS place
JOIN submission_key AS known ON known.key = substring($1 FROM place FOR 20) AND known.expires > now()
CROSS JOIN LATERAL (
    SELECT state FROM job WHERE id = known.job
    UNION ALL
    SELECT state FROM job_ended WHERE id = known.job
) AS found

-- name: jobs_by_id
SELECT * FROM shown_job WHERE id = ANY ($1::bigint[])

-- name: job
SELECT * FROM shown_job WHERE id = $1

-- name: steps
-- The steps of chains, each chain's in their order.
SELECT shown.*
FROM (
    SELECT id FROM job WHERE chain = ANY ($1::bigint[]) AND step IS NOT NULL
    UNION ALL
    SELECT id FROM job_ended WHERE chain = ANY ($1::bigint[]) AND step IS NOT NULL
) AS step
CROSS JOIN LATERAL (SELECT * FROM shown_job WHERE shown_job.id = step.id OFFSET 0) AS shown
ORDER BY shown.chain, shown.step

-- name: history
SELECT job, at, event, detail FROM job_event WHERE job = $1 ORDER BY n

-- name: jobs_of_all
-- A page of jobs below $1: the newest $2 of the kinds $3 and the states $4, and of the user $5; live ones above the id
-- $6, ended ones above $7. The queue itself is walked from its newest row. Of the ended jobs, one probe of an index for
-- each kind and state; completed noops are in no such index, they are found by walking the ids down to $8. Each index
-- is ordered by another spelling of the id: however little the planner knows, it has no other for that order. OFFSET
-- keeps it from joining the page with all jobs.
WITH page AS (
    (SELECT id FROM job
     WHERE id < $1 AND id > $6
        AND kind = ANY ($3::smallint[]) AND state = ANY ($4::smallint[]) AND 4 > ANY ($4::smallint[])
        AND ($5::bigint IS NULL OR uid = $5)
     ORDER BY id DESC LIMIT $2)
    UNION ALL
    SELECT probe.id
    FROM unnest($3::smallint[]) AS wanted_kind CROSS JOIN unnest($4::smallint[]) AS wanted_state
    CROSS JOIN LATERAL (
        SELECT id FROM job_ended
        WHERE ~id > ~($1::bigint) AND ~id < ~($7::bigint)
            AND kind = wanted_kind AND state = wanted_state AND (kind <> 0 OR state <> 4)
            AND ($5::bigint IS NULL OR uid = $5)
        ORDER BY ~id LIMIT $2
    ) AS probe
    WHERE wanted_state >= 4
    UNION ALL
    (SELECT id FROM job_ended
     WHERE id < $1 AND id > $8 AND kind = 0 AND state = 4
        AND 0 = ANY ($3::smallint[]) AND 4 = ANY ($4::smallint[]) AND ($5::bigint IS NULL OR uid = $5)
     ORDER BY id DESC LIMIT $2)
    ORDER BY id DESC LIMIT $2
)
SELECT shown.*
FROM page CROSS JOIN LATERAL (SELECT * FROM shown_job WHERE shown_job.id = page.id OFFSET 0) AS shown
ORDER BY shown.id DESC

-- name: jobs_of_teamspace
-- The same for the teamspace $9. Its own part of the queue is walked by an index; live noops, which are in none, with
-- everybody's.
WITH page AS (
    (SELECT id FROM job
     WHERE -id > -($1::bigint) AND -id < -($6::bigint) AND teamspace = (SELECT id FROM teamspace WHERE name = $9)
        AND kind = ANY ($3::smallint[]) AND kind <> 0 AND state = ANY ($4::smallint[]) AND 4 > ANY ($4::smallint[])
        AND ($5::bigint IS NULL OR uid = $5)
     ORDER BY -id LIMIT $2)
    UNION ALL
    (SELECT id FROM job
     WHERE id < $1 AND id > $6 AND teamspace = (SELECT id FROM teamspace WHERE name = $9)
        AND kind = 0 AND 0 = ANY ($3::smallint[]) AND state = ANY ($4::smallint[]) AND 4 > ANY ($4::smallint[])
        AND ($5::bigint IS NULL OR uid = $5)
     ORDER BY id DESC LIMIT $2)
    UNION ALL
    SELECT probe.id
    FROM unnest($3::smallint[]) AS wanted_kind CROSS JOIN unnest($4::smallint[]) AS wanted_state
    CROSS JOIN LATERAL (
        SELECT id FROM job_ended
        WHERE -id > -($1::bigint) AND -id < -($7::bigint) AND teamspace = (SELECT id FROM teamspace WHERE name = $9)
            AND kind = wanted_kind AND state = wanted_state AND (kind <> 0 OR state <> 4)
            AND ($5::bigint IS NULL OR uid = $5)
        ORDER BY -id LIMIT $2
    ) AS probe
    WHERE wanted_state >= 4
    UNION ALL
    (SELECT id FROM job_ended
     WHERE id < $1 AND id > $8 AND teamspace = (SELECT id FROM teamspace WHERE name = $9) AND kind = 0 AND state = 4
        AND 0 = ANY ($3::smallint[]) AND 4 = ANY ($4::smallint[]) AND ($5::bigint IS NULL OR uid = $5)
     ORDER BY id DESC LIMIT $2)
    ORDER BY id DESC LIMIT $2
)
SELECT shown.*
FROM page CROSS JOIN LATERAL (SELECT * FROM shown_job WHERE shown_job.id = page.id OFFSET 0) AS shown
ORDER BY shown.id DESC

-- name: jobs_of_table
-- The same for the table $8, to which no noop belongs.
WITH page AS (
    (SELECT id FROM job
     WHERE id < $1 AND id > $6 AND table_id = $8
        AND kind = ANY ($3::smallint[]) AND state = ANY ($4::smallint[]) AND 4 > ANY ($4::smallint[])
        AND ($5::bigint IS NULL OR uid = $5)
     ORDER BY id DESC LIMIT $2)
    UNION ALL
    SELECT probe.id
    FROM unnest($3::smallint[]) AS wanted_kind CROSS JOIN unnest($4::smallint[]) AS wanted_state
    CROSS JOIN LATERAL (
        SELECT id FROM job_ended
        WHERE -id > -($1::bigint) AND -id < -($7::bigint) AND table_id = $8
            AND kind = wanted_kind AND state = wanted_state
            AND ($5::bigint IS NULL OR uid = $5)
        ORDER BY -id LIMIT $2
    ) AS probe
    WHERE wanted_state >= 4
    ORDER BY id DESC LIMIT $2
)
SELECT shown.*
FROM page CROSS JOIN LATERAL (SELECT * FROM shown_job WHERE shown_job.id = page.id OFFSET 0) AS shown
ORDER BY shown.id DESC

-- name: newest_job
SELECT greatest((SELECT max(id) FROM job), (SELECT max(id) FROM job_ended), 0)

-- name: oldest_needed_job
-- The first job that is live or stands under a key that has not expired.
SELECT least((SELECT min(id) FROM job), (SELECT min(job) FROM submission_key WHERE expires > now()))

-- name: drop_expired_keys
DELETE FROM submission_key WHERE expires <= now()
