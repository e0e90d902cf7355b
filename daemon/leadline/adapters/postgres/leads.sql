-- The statements of the tables slice.

-- name: table_by_name
SELECT id, teamspace, name, columns::text AS columns, key_columns, created,
    (SELECT job.id FROM job JOIN kind ON kind.id = job.kind
     WHERE job.table_id = lead_table.id AND kind.name = 'upload' ORDER BY job.id LIMIT 1) AS uploading
FROM lead_table WHERE teamspace = $1 AND name = $2

-- name: table_by_id
SELECT id, teamspace, name, columns::text AS columns, key_columns, created, NULL::bigint AS uploading
FROM lead_table WHERE id = $1

-- name: new_table_id
SELECT nextval(pg_get_serial_sequence('lead_table', 'id'))

-- name: make_table
INSERT INTO lead_table (id, teamspace, name) VALUES ($1::bigint, $2::text, $3::text)
ON CONFLICT (teamspace, name) DO NOTHING

-- name: declare_columns
UPDATE lead_table SET columns = columns || (
    SELECT coalesce(jsonb_agg(new.value ORDER BY new.ordinality), '[]')
    FROM jsonb_array_elements($2::text::jsonb) WITH ORDINALITY AS new
    WHERE NOT EXISTS (
        SELECT FROM jsonb_array_elements(columns) AS old WHERE old.value ->> 'name' = new.value ->> 'name'
    )
)
WHERE id = $1::bigint

-- name: set_key
UPDATE lead_table SET key_columns = $2 WHERE id = $1 AND key_columns = '{}'

-- name: attach_list
INSERT INTO job_list (job, list, total, filter, list_hash, frozen)
VALUES ($1::bigint, $2::bigint, $3::bigint, $4::text, $5::bytea, 'on_submit')

-- name: attach_started_list
INSERT INTO job_list (job, list, total, filter, list_hash, frozen) VALUES ($1, $2, $3, $4, $5, 'on_start')

-- name: attach_file
INSERT INTO upload_file (job, file, original) VALUES ($1::bigint, $2::text, $3::text)

-- name: upload_file
SELECT file, original FROM upload_file WHERE job = $1

-- name: matching
-- The leads that a statement with a compiled condition in it finds.
SELECT lead FROM run_expression($1, $2) AS found (lead bigint)

-- name: written
-- Which leads a compiled value was written into; NULL where that is all of them.
SELECT leads FROM run_expression($1, $2) AS found (leads bigint[])

-- name: applied
-- What became of leads into which a compiled value was written.
SELECT reason, leads, ids FROM run_expression($1, $2) AS found (reason text, leads bigint, ids bigint[])

-- name: matching_leads
-- The same as a list, in their order; for keep_list.
SELECT leads FROM run_expression($3, $4) AS found (leads bigint[])

-- name: keep_header
-- Rows are counted from 1 below the header of their file: row 0 is the header.
INSERT INTO refused_row (job, row_number, line, reason, detail, raw) VALUES ($1, 0, 0, 'header', '', $2)
ON CONFLICT (job, row_number) DO NOTHING

-- name: header
SELECT raw FROM refused_row WHERE job = $1 AND row_number = 0

-- name: new_list
SELECT nextval('lead_list_id')

-- name: unanswered_leads
-- The same without those about which job $5, or one that it is a rerun of, was answered: asking again would be paid for
-- again. OFFSET keeps each look-up to the whole of its key: where most jobs have few leads, half of one seems enough.
WITH RECURSIVE earlier AS (
    SELECT $5::bigint AS job
    UNION
    SELECT coalesce(ended.rerun_of, live.rerun_of) FROM earlier
    LEFT JOIN job_ended AS ended ON ended.id = earlier.job LEFT JOIN job AS live ON live.id = earlier.job
    WHERE coalesce(ended.rerun_of, live.rerun_of) IS NOT NULL
)
SELECT array_agg(lead ORDER BY place) AS leads
FROM run_expression($3, $4) AS found (leads bigint[]) CROSS JOIN unnest(leads) WITH ORDINALITY AS wanted (lead, place)
WHERE NOT EXISTS (
    SELECT FROM earlier CROSS JOIN LATERAL (
        SELECT FROM lead_result WHERE lead_result.job = earlier.job AND lead_result.lead = wanted.lead
        AND (state = 'done' OR state = 'skipped' AND reason NOT IN ('run_if', 'missing_input', 'deleted')) OFFSET 0
    ) AS found
)
AND NOT EXISTS (
    SELECT FROM earlier CROSS JOIN LATERAL (
        SELECT FROM lead_done WHERE lead_done.job = earlier.job
        AND block = wanted.lead >> 10 AND get_bit(lead_done.leads, (wanted.lead & 1023)::integer) = 1 OFFSET 0
    ) AS found
)

-- name: keep_list
-- Freeze the leads that a query gives as list $1, $2 to a chunk: how many there are, and a hash of their ids. They never
-- leave the database, however many they are; as one value they are cut up without being sorted, or written aside.
WITH wanted AS MATERIALIZED ({wanted}), kept AS (
    INSERT INTO lead_list (id, chunk, leads)
    SELECT $1, chunk, wanted.leads[chunk * $2 + 1 : (chunk + 1) * $2]
    FROM wanted CROSS JOIN generate_series(0, (cardinality(wanted.leads) + $2 - 1) / $2 - 1) AS chunk
    RETURNING chunk, leads
)
SELECT coalesce(sum(cardinality(leads)), 0)::bigint AS total,
    substr(sha256(coalesce(string_agg(sha256(leads::text::bytea), ''::bytea ORDER BY chunk), '')), 1, 16) AS list_hash
FROM kept

-- name: list_of
SELECT list, total FROM job_list WHERE job = $1

-- name: list_receipts
SELECT job, total, filter, list_hash, frozen, at FROM job_list WHERE job = ANY ($1::bigint[])

-- name: chunk
SELECT leads FROM lead_list WHERE id = $1 AND chunk = $2

-- name: unsettled
-- OFFSET keeps each to a look-up by its key, of which there are a chunk's; joined, all results of the job were read.
SELECT wanted.lead FROM unnest($2::bigint[]) WITH ORDINALITY AS wanted (lead, place)
WHERE NOT EXISTS (SELECT FROM lead_result WHERE lead_result.job = $1 AND lead_result.lead = wanted.lead OFFSET 0)
AND NOT EXISTS (
    SELECT FROM lead_done
    WHERE job = $1 AND block = wanted.lead >> 10 AND get_bit(leads, (wanted.lead & 1023)::integer) = 1 OFFSET 0
)
ORDER BY place

-- name: leads
SELECT id, data::text AS data FROM lead WHERE table_id = $1 AND id = ANY ($2::bigint[])

-- name: rerun_of_lead_by_lead
-- The leads of an ended job's list that its results say are wanted again; for keep_list.
SELECT array_agg(wanted.lead ORDER BY lead_list.chunk, place) AS leads
FROM lead_list CROSS JOIN LATERAL unnest(lead_list.leads) WITH ORDINALITY AS wanted (lead, place)
LEFT JOIN LATERAL (
    SELECT state, reason FROM lead_result WHERE job = $3 AND lead = wanted.lead OFFSET 0
) AS result ON true
WHERE lead_list.id = $4 AND CASE $5::text
    WHEN 'all' THEN true
    WHEN 'failed' THEN result.state IN ('failed', 'unknown')
    ELSE result.state IN ('failed', 'unknown') OR result.reason = 'spend_cap'
        OR result.state IS NULL AND NOT EXISTS (
            SELECT FROM lead_done WHERE job = $3
            AND block = wanted.lead >> 10 AND get_bit(lead_done.leads, (wanted.lead & 1023)::integer) = 1 OFFSET 0
        )
END

-- name: rerun_of_sets
-- The same for a job that stores results of exceptions only: what lies before its checkpoint is done unless it is one.
SELECT array_agg(wanted.lead ORDER BY lead_list.chunk, place) AS leads
FROM lead_list CROSS JOIN LATERAL unnest(lead_list.leads) WITH ORDINALITY AS wanted (lead, place)
LEFT JOIN LATERAL (SELECT state FROM lead_result WHERE job = $3 AND lead = wanted.lead OFFSET 0) AS result ON true
WHERE lead_list.id = $4 AND CASE $5::text
    WHEN 'all' THEN true
    WHEN 'failed' THEN result.state = 'failed'
    ELSE result.state = 'failed' OR lead_list.chunk >= (SELECT chunks_done FROM job_list WHERE job = $3)
END

-- name: kind_of
SELECT kind.name FROM kind JOIN (
    SELECT kind FROM job WHERE id = $1 UNION ALL SELECT kind FROM job_ended WHERE id = $1
) AS found ON found.kind = kind.id

-- name: orders
SELECT lead, provider_task, ordered, account FROM lead_order WHERE job = $1
    AND NOT EXISTS (SELECT FROM lead_result WHERE lead_result.job = $1 AND lead_result.lead = lead_order.lead OFFSET 0)
    AND NOT EXISTS (
        SELECT FROM lead_done
        WHERE job = $1 AND block = lead_order.lead >> 10 AND get_bit(leads, (lead_order.lead & 1023)::integer) = 1
        OFFSET 0
    )

-- name: bulk_orders
SELECT number, account, leads, provider_task, ordered FROM bulk_order WHERE job = $1 ORDER BY number

-- name: cut_off
-- The calls of a job whose end nobody knows, oldest first; open are those after the last that was answered.
WITH own AS (
    SELECT id, lead, account, cause, state FROM call WHERE job = $1
), answered AS (
    SELECT lead, account, max(id) AS last FROM own WHERE state NOT IN ('sent', 'unsent', 'unknown')
    GROUP BY lead, account
)
SELECT own.id, own.lead, own.account, own.cause, coalesce(own.id > answered.last, true) AS open
FROM own LEFT JOIN answered USING (lead, account)
WHERE own.state = 'unknown' ORDER BY own.id

-- name: checkpoint
SELECT checkpoint::text FROM attempt WHERE job = $1

-- name: refused_rows
SELECT row_number, line, reason, detail, raw FROM (
    SELECT *, sum(octet_length(raw)) OVER (ORDER BY row_number) - octet_length(raw) AS bytes_before FROM (
        SELECT * FROM refused_row WHERE job = $1 AND row_number > $2 ORDER BY row_number LIMIT $3
    ) AS page
) AS measured
WHERE bytes_before < $4 ORDER BY row_number

-- name: leads_not_done
-- Leads with which job $1 is through and which it has not done, from behind lead $3 on, and what they hold in table $2,
-- which a table that was deleted shows to nobody while its leads wait for the sweeper.
SELECT lead, state, reason, detail, data FROM (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY lead) - octet_length(data) AS bytes_before FROM (
        SELECT lead, state, reason, coalesce(detail, '') AS detail, coalesce(found.data, '') AS data FROM (
            SELECT * FROM lead_result WHERE job = $1 AND lead > $3 AND state <> 'done' ORDER BY lead LIMIT $4
        ) AS page
        LEFT JOIN LATERAL (
            SELECT data::text AS data FROM lead
            WHERE table_id = $2 AND id = page.lead AND EXISTS (SELECT FROM lead_table WHERE lead_table.id = $2) OFFSET 0
        ) AS found ON true
    ) AS held
) AS measured
WHERE bytes_before < $5 ORDER BY lead

-- name: save_attempt
-- Counts and checkpoint, and the leads that are done, of each block $9 the bits $10; returns the present where a point of
-- the job's throughput is due.
UPDATE attempt SET total = $2, done = $3, failed = $4, skipped = $5, unknown = $6, activity = $7,
    checkpoint = coalesce($8::text::jsonb, checkpoint)
WHERE job = $1
RETURNING CASE WHEN NOT EXISTS (
    SELECT FROM throughput WHERE throughput.job = $1 AND due > extract(epoch FROM now()) * 1000000
) THEN (extract(epoch FROM now()) * 1000000)::bigint END,
CASE WHEN cardinality($9::bigint[]) > 0 THEN leads_are_done($1, $9, $10::bit varying[]) END

-- name: throughput
SELECT seconds, at, settled FROM throughput WHERE job = $1

-- name: keep_throughput
INSERT INTO throughput (job, due, seconds, at, settled) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (job) DO UPDATE
SET due = excluded.due, seconds = excluded.seconds, at = excluded.at, settled = excluded.settled

-- name: save_chunks_done
UPDATE job_list SET chunks_done = $2 WHERE job = $1

-- name: lock_table
SELECT next_lead FROM lead_table WHERE id = $1 FOR UPDATE

-- name: advance_table
UPDATE lead_table SET next_lead = $2 WHERE id = $1

-- name: known_keys_of_leads
SELECT key_hash, lead FROM lead_key WHERE table_id = $1 AND key_hash = ANY ($2::bytea[])

-- name: lay_cells
SELECT lay_cells($1, string_to_array($2, ',')::bigint[], $3::text::jsonb, $4)

-- name: keep_results
-- Of leads of which there is more to say than that they are done, what there is to say, $3 to $6; and cells of leads of
-- table $7, where there are any.
WITH kept AS (
    INSERT INTO lead_result (job, lead, state, reason, detail, attempt)
    SELECT $1::bigint, lead, state, nullif(reason, ''), nullif(detail, ''), $2::integer
    FROM unnest($3::bigint[], $4::text[], $5::text[], $6::text[]) AS given (lead, state, reason, detail)
)
SELECT lay_cells($7, string_to_array($8, ',')::bigint[], $9::text::jsonb, false) WHERE $8 <> ''

-- name: count_errors
-- Leads, or where $2 rows of a file, that ended otherwise than done, by why: of each reason so many ($5) are told with its
-- first sample, and none with the others.
INSERT INTO lead_error (job, of_file, state, reason, leads, samples, details)
SELECT $1::bigint, $2::boolean, state, reason, sum(leads), array_agg(sample ORDER BY place),
    array_agg(detail ORDER BY place)
FROM unnest($3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[]) WITH ORDINALITY
    AS given (state, reason, leads, sample, detail, place)
GROUP BY state, reason
ON CONFLICT (job, state, reason) DO UPDATE
SET leads = lead_error.leads + excluded.leads, samples = (lead_error.samples || excluded.samples)[:$8::integer],
    details = (lead_error.details || excluded.details)[:$8]

-- name: errors
-- Why leads of a job, or of the steps of a chain, were not done; the most frequent first.
WITH own AS (
    SELECT $1::bigint AS job
    UNION ALL SELECT id FROM job WHERE chain = $1
    UNION ALL SELECT id FROM job_ended WHERE chain = $1
)
SELECT job, of_file, state, reason, leads, samples, details FROM own JOIN lead_error USING (job)
ORDER BY job, leads DESC, state, reason

-- name: calls_are_done
-- Calls that brought what is stored with this: when that was, and what they have come to where it is not as charged.
UPDATE call SET state = 'done', began = ended.began, cost = coalesce(ended.cost, call.cost), credits = 0
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS ended (id, began, cost)
WHERE call.id = ended.id

-- name: orders_are_done
DELETE FROM lead_order WHERE job = $1 AND lead = ANY ($2::bigint[])

-- name: keep_orders
INSERT INTO lead_order (job, lead, provider_task, ordered, account)
SELECT $1, lead, provider_task, ordered, account
FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::text[]) AS given (lead, provider_task, ordered, account)
ON CONFLICT (job, lead) DO UPDATE
SET provider_task = excluded.provider_task, ordered = excluded.ordered, account = excluded.account

-- name: keep_charges
-- Entries of the ledger; those of one account about one lead add up, and the last says how far it is.
INSERT INTO charge (job, lead, run, at, credits, account, answer, reason)
SELECT $1, lead, $2, at, credits, account, answer, nullif(reason, '')
FROM unnest($3::bigint[], $4::text[], $5::bigint[], $6::numeric[], $7::text[], $8::text[])
    AS given (lead, account, at, credits, answer, reason)
ON CONFLICT (job, lead, account) DO UPDATE
SET at = excluded.at, credits = charge.credits + excluded.credits, answer = excluded.answer, reason = excluded.reason

-- name: keep_spending
INSERT INTO spending (job, teamspace, month, account, calls, credits)
SELECT $1, $2, month, account, calls, credits
FROM unnest($3::date[], $4::text[], $5::bigint[], $6::numeric[]) AS given (month, account, calls, credits)
ON CONFLICT (job, account, month) DO UPDATE
SET calls = spending.calls + excluded.calls, credits = spending.credits + excluded.credits

-- name: answers
SELECT lead, account, answer, reason FROM charge WHERE job = $1 AND lead = ANY ($2::bigint[])

-- name: gone
SELECT (SELECT coalesce(sum(credits), 0) FROM spending WHERE job = $1)
    + (SELECT coalesce(sum(credits), 0) FROM call WHERE job = $1 AND credits > 0 AND state <> 'sent')

-- name: spent
-- What a job has cost by account, or the steps of a chain: for certain, and perhaps.
WITH own AS (
    SELECT $1::bigint AS job
    UNION ALL SELECT id FROM job WHERE chain = $1
    UNION ALL SELECT id FROM job_ended WHERE chain = $1
)
SELECT '' AS teamspace, account, sum(calls)::bigint AS calls, sum(credits) AS credits, sum(perhaps) AS perhaps
FROM (
    SELECT account, calls, credits, 0 AS perhaps FROM own JOIN spending USING (job)
    UNION ALL
    SELECT account, 0, 0, credits FROM own JOIN call USING (job) WHERE credits > 0 AND state <> 'sent'
) AS entry
GROUP BY account ORDER BY account

-- name: usage
-- The sums of a month ($1: its first day), which begins and ends in UTC, for certain and perhaps: by teamspace ($2) and
-- account ($3), of the teamspace $4 or of all, behind ($5, $6). Calls of which nobody knows how they ended are few.
SELECT teamspace, account, sum(calls)::bigint AS calls, sum(credits) AS credits, sum(perhaps) AS perhaps
FROM (
    SELECT CASE WHEN $2::boolean THEN teamspace ELSE '' END AS teamspace,
        CASE WHEN $3::boolean THEN account ELSE '' END AS account, calls, credits, 0 AS perhaps
    FROM spending WHERE month = $1::date AND ($4::text IS NULL OR teamspace = $4)
    UNION ALL
    SELECT CASE WHEN $2 THEN teamspace.name ELSE '' END, CASE WHEN $3 THEN call.account ELSE '' END, 0, 0, call.credits
    FROM call
    CROSS JOIN LATERAL (
        SELECT teamspace FROM job WHERE job.id = call.job UNION ALL
        SELECT teamspace FROM job_ended WHERE job_ended.id = call.job
    ) AS owner
    JOIN teamspace ON teamspace.id = owner.teamspace
    WHERE call.credits > 0 AND call.state <> 'sent' AND ($4 IS NULL OR teamspace.name = $4)
        AND call.sent >= extract(epoch FROM $1::timestamp)::bigint * 1000000
        AND call.sent < extract(epoch FROM $1::timestamp + interval '1 month')::bigint * 1000000
) AS entry
WHERE (teamspace, account) > ($5::text, $6::text)
GROUP BY teamspace, account ORDER BY teamspace, account LIMIT $7

-- name: run_of
-- Back from rerun to rerun, as far as they are kept.
WITH RECURSIVE run AS (
    SELECT $1::bigint AS id
    UNION ALL
    SELECT before.rerun_of FROM run CROSS JOIN LATERAL (
        SELECT rerun_of FROM job WHERE job.id = run.id UNION ALL
        SELECT rerun_of FROM job_ended WHERE job_ended.id = run.id
    ) AS before WHERE before.rerun_of IS NOT NULL
)
SELECT min(id) FROM run

-- name: paid_elsewhere
SELECT lead FROM charge WHERE job = $1 AND job <> $2 AND lead = ANY ($3::bigint[]) AND answer = 'result' AND credits > 0
UNION
SELECT lead FROM charge
WHERE run = $1 AND run <> job AND job <> $2 AND lead = ANY ($3::bigint[]) AND answer = 'result' AND credits > 0

-- name: skipped
SELECT count(*) FROM lead_result WHERE job = $1 AND state = 'skipped' AND reason = $2

-- name: lock_orders_of
-- Whoever is about to order something of an account, one after the other; the first number keeps others' locks apart.
SELECT pg_advisory_xact_lock(11, hashtext($1))

-- name: open_bulk_orders
SELECT count(*) FROM bulk_order WHERE account = $1 AND ordered > $2 AND (job, number) <> ($3, $4)

-- name: keep_bulk_order
INSERT INTO bulk_order (job, number, account, leads, provider_task, ordered) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (job, number) DO UPDATE SET provider_task = excluded.provider_task, ordered = excluded.ordered

-- name: drop_bulk_orders
DELETE FROM bulk_order WHERE job = $1 AND number = ANY ($2::integer[])

-- name: drop_old_bulk_orders
DELETE FROM bulk_order WHERE ordered < $1 AND NOT EXISTS (SELECT FROM job WHERE job.id = bulk_order.job)

-- name: files_of_live_uploads
SELECT upload_file.file FROM upload_file JOIN job ON job.id = upload_file.job
