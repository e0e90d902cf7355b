-- The life of tables: made, looked at, kept for so long, deleted.

-- name: page_of_tables
-- Tables behind ($3, $4) by teamspace and name. Leads are counted by their numbers, which have no gaps.
SELECT id, teamspace, name, columns::text AS columns, key_columns, created, NULL::bigint AS uploading,
    retention_days,    next_lead - first_lead AS leads, (SELECT count(*) FROM job WHERE job.table_id = lead_table.id) AS jobs
FROM lead_table
WHERE ($1::text IS NULL OR teamspace = $1) AND ($2::text IS NULL OR name = $2)
    AND (teamspace, name) > (coalesce($3::text, ''), coalesce($4::text, ''))
ORDER BY teamspace, name LIMIT $5

-- name: create_table
INSERT INTO lead_table (teamspace, name, columns, key_columns) VALUES ($1, $2, $3::text::jsonb, $4)
ON CONFLICT (teamspace, name) DO NOTHING RETURNING id

-- name: set_retention
UPDATE lead_table SET retention_days = $2 WHERE id = $1

-- name: delete_table
-- The table is gone with this, unless a job on it is live; its leads are left to the sweeper.
WITH gone AS (
    DELETE FROM lead_table WHERE id = $1 AND NOT EXISTS (SELECT FROM job WHERE job.table_id = $1)
    RETURNING id, teamspace, name, first_lead, next_lead
)
INSERT INTO deleted_table (id, teamspace, name, first_lead, next_lead)
SELECT id, teamspace, name, first_lead, next_lead FROM gone RETURNING id

-- name: sample
-- Up to $2 leads of a table, evenly from the first to the last: how many those are, and the bytes of their cells.
WITH chosen AS MATERIALIZED (
    SELECT lead.data FROM lead_table
    CROSS JOIN generate_series(0, least($2, next_lead - first_lead) - 1) AS place
    JOIN lead ON lead.table_id = $1
        AND lead.id = first_lead + place * (next_lead - first_lead) / least($2, next_lead - first_lead)
    WHERE lead_table.id = $1
)
SELECT (SELECT count(*) FROM chosen) AS leads, (SELECT coalesce(sum(pg_column_size(data)), 0) FROM chosen) AS bytes,
    (
        SELECT coalesce(jsonb_object_agg(key, filled), '{}')::text FROM (
            SELECT key, count(*) AS filled FROM chosen CROSS JOIN jsonb_each(data) WHERE value <> 'null' GROUP BY key
        ) AS counted
    ) AS filled

-- name: was_deleted
SELECT EXISTS (SELECT FROM deleted_table WHERE id = $1)

-- name: tables_to_sweep
SELECT id, first_lead, next_lead FROM deleted_table WHERE NOT swept ORDER BY id

-- name: is_swept
UPDATE deleted_table SET swept = true WHERE id = $1

-- name: forget_deleted
-- Tables that were deleted before $1 and that no job is on its way to.
DELETE FROM deleted_table
WHERE swept AND deleted < to_timestamp($1) AND NOT EXISTS (SELECT FROM job WHERE job.table_id = deleted_table.id)

-- name: sweep_keys
-- Of the next $4 keys behind $2 remove those of leads below $3; returns the last that was looked at.
WITH page AS MATERIALIZED (
    SELECT key_hash, lead FROM lead_key WHERE table_id = $1 AND key_hash > $2 ORDER BY key_hash LIMIT $4
), gone AS (
    DELETE FROM lead_key USING page
    WHERE lead_key.table_id = $1 AND lead_key.key_hash = page.key_hash AND page.lead < $3
)
SELECT key_hash FROM page ORDER BY key_hash DESC LIMIT 1

-- name: sweep_leads
-- Remove the leads from $2 to below $3.
DELETE FROM lead WHERE table_id = $1 AND id >= $2 AND id < $3

-- name: begin_at
-- The leads below $2 are gone.
UPDATE lead_table SET first_lead = $2 WHERE id = $1 AND first_lead < $2

-- name: sweep_days
-- The days whose leads are gone, or all of a table that is.
DELETE FROM lead_day WHERE table_id = $1 AND ($2::integer IS NULL OR day < (now() AT TIME ZONE 'UTC')::date - $2)

-- name: tables_with_retention
-- A page of tables by number, for whoever knows what holds where a table says nothing.
SELECT id, teamspace, retention_days FROM lead_table WHERE id > $1 AND first_lead < next_lead ORDER BY id LIMIT $2

-- name: outlived
-- Of these tables ($1) with their days ($2) those that have leads which are older: from where to below which.
SELECT lead_table.id, lead_table.first_lead, given.days, coalesce(kept.first_lead, next_lead) AS kept_from
FROM unnest($1::bigint[], $2::integer[]) AS given (id, days) JOIN lead_table USING (id)
LEFT JOIN LATERAL (
    SELECT min(lead_day.first_lead) AS first_lead FROM lead_day
    WHERE lead_day.table_id = lead_table.id AND day >= (now() AT TIME ZONE 'UTC')::date - given.days
) AS kept ON true
WHERE coalesce(kept.first_lead, next_lead) > lead_table.first_lead

-- name: note_day
-- Lead $2 is the first of today, unless there was one before.
INSERT INTO lead_day (table_id, day, first_lead) VALUES ($1, (now() AT TIME ZONE 'UTC')::date, $2)
ON CONFLICT (table_id, day) DO NOTHING

-- name: jobs_with_remains
-- The next $2 ended jobs behind $1 of which there is a list, results, refused rows or throughput; with how long those of
-- their table stay (0: the table is gone; null: it does not say). Found from one to the next by the indexes, not by reading rows.
WITH RECURSIVE kept AS (
    SELECT $1::bigint AS job, 0 AS place
    UNION ALL
    SELECT least(
        (SELECT min(job_list.job) FROM job_list WHERE job_list.job > kept.job),
        (SELECT min(refused_row.job) FROM refused_row WHERE refused_row.job > kept.job),
        (SELECT min(throughput.job) FROM throughput WHERE throughput.job > kept.job),
        (SELECT min(lead_result.job) FROM lead_result WHERE lead_result.job > kept.job),
        (SELECT min(lead_done.job) FROM lead_done WHERE lead_done.job > kept.job)
    ), place + 1 FROM kept WHERE kept.job IS NOT NULL AND place < $2
)
SELECT kept.job, job_ended.ended, lead_table.teamspace, lead_table.retention_days, job.id IS NOT NULL AS live,
    deleted_table.id IS NOT NULL AS of_deleted
FROM kept LEFT JOIN job ON job.id = kept.job LEFT JOIN job_ended ON job_ended.id = kept.job
LEFT JOIN lead_table ON lead_table.id = job_ended.table_id
LEFT JOIN deleted_table ON deleted_table.id = job_ended.table_id
WHERE place > 0 AND kept.job IS NOT NULL ORDER BY kept.job

-- name: sweep_refused
-- Remove $2 refused rows of a job, and tell whether there may be more. They are found by their place, here and below: to
-- join a page with its table, the planner takes half of a key where most jobs have left little.
WITH gone AS (
    DELETE FROM refused_row WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM refused_row WHERE job = $1 ORDER BY row_number LIMIT $2
    )) RETURNING 1
)
SELECT count(*) = $2 FROM gone

-- name: sweep_results
-- The same for its results; those that are a bit each take a row for a thousand leads.
WITH gone AS (
    DELETE FROM lead_result WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM lead_result WHERE job = $1 ORDER BY lead LIMIT $2
    )) RETURNING 1
), done AS (
    DELETE FROM lead_done WHERE job = $1
)
SELECT count(*) = $2 FROM gone

-- name: sweep_charges
-- The same for what the ledger has about its leads; the ledger's sums stay.
WITH gone AS (
    DELETE FROM charge WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM charge WHERE job = $1 ORDER BY lead, account LIMIT $2
    )) RETURNING 1
)
SELECT count(*) = $2 FROM gone

-- name: sweep_list
-- The same for the chunks of its list.
WITH page AS MATERIALIZED (
    SELECT lead_list.id, chunk FROM job_list JOIN lead_list ON lead_list.id = job_list.list
    WHERE job_list.job = $1 ORDER BY chunk LIMIT $2
), gone AS (
    DELETE FROM lead_list USING page WHERE lead_list.id = page.id AND lead_list.chunk = page.chunk
)
SELECT count(*) = $2 FROM page

-- name: forget_list
DELETE FROM job_list WHERE job = $1

-- name: forget_errors
-- What is told of rows of a file goes with them; of leads, with everything ($2).
DELETE FROM lead_error WHERE job = $1 AND (of_file OR $2)

-- name: forget_throughput
DELETE FROM throughput WHERE job = $1
