-- The statements of the outbox for mails and webhooks.

-- name: wish_notice
-- Whom to tell of job $1; part of its admission.
INSERT INTO notice_wish (job, medium, target, events) VALUES ($1, $2, $3, $4)

-- name: noticed
-- Live jobs of which somebody is to be told.
SELECT DISTINCT job FROM notice_wish

-- name: tell_of_ends
-- Notices of the jobs $1, which have just ended.
WITH ended AS (
    SELECT id, teamspace, (ARRAY['completed', 'partial', 'failed', 'cancelled', 'skipped'])[state - 3] AS event
    FROM job_ended WHERE id = ANY ($1::bigint[])
), gone AS (
    DELETE FROM notice_wish WHERE job = ANY ($1::bigint[]) RETURNING job, medium, target, events
)
INSERT INTO notice (job, teamspace, event, medium, target)
SELECT ended.id, teamspace.name, ended.event, gone.medium, gone.target
FROM gone JOIN ended ON ended.id = gone.job JOIN teamspace ON teamspace.id = ended.teamspace
WHERE ended.event = ANY (gone.events)

-- name: tell_of_stalls
-- Notices of the live jobs $1, which stand still; who is to be told of a chain is told of its steps.
INSERT INTO notice (job, teamspace, event, medium, target)
SELECT job.id, teamspace.name, 'stalled', wish.medium, wish.target
FROM job JOIN notice_wish AS wish ON wish.job IN (job.id, job.chain) JOIN teamspace ON teamspace.id = job.teamspace
WHERE job.id = ANY ($1::bigint[]) AND 'stalled' = ANY (wish.events)

-- name: recover_webhooks
-- Webhooks that were being sent by somebody who is not there any more: they are sent again, under their id.
UPDATE notice SET state = 'due', due = now() WHERE state = 'sending' AND medium = 'webhook' AND id <> ALL ($1::uuid[])

-- name: recover_mails
-- The same for mails: nobody knows whether they left.
UPDATE notice SET state = 'unknown', detail = 'the daemon ended while it was being sent'
WHERE state = 'sending' AND medium = 'mail' AND id <> ALL ($1::uuid[])

-- name: due_notices
-- What is to be sent now, oldest first, but for those that are in hand already.
SELECT notice.id, notice.job, teamspace, event, medium, target, tries, made, subject, body, html
FROM notice LEFT JOIN batch_mail ON batch_mail.id = notice.batch_mail
WHERE state = 'due' AND due <= now() AND notice.id <> ALL ($2::uuid[]) ORDER BY due LIMIT $1

-- name: next_due
-- Seconds until something is to be sent.
SELECT extract(epoch FROM min(due) - now())::float8 FROM notice WHERE state = 'due' AND id <> ALL ($1::uuid[])

-- name: begin_notice
UPDATE notice SET state = 'sending', tries = tries + 1 WHERE id = $1 AND state = 'due'

-- name: end_notice
UPDATE notice SET state = $2, due = now() + $3::float8 * interval '1 second', detail = $4
WHERE id = $1 AND state = 'sending'

-- name: notices
-- The newest $4 of a job or of all, in these states.
SELECT id, job, teamspace, event, medium, target, state, tries, made, due, detail FROM notice
WHERE ($1::bigint IS NULL OR job = $1) AND ($2::text IS NULL OR teamspace = $2) AND state = ANY ($3::text[])
ORDER BY made DESC, id LIMIT $4

-- name: undelivered
-- How many were given up, or are held because nobody knows whether they left.
SELECT count(*) FROM notice WHERE state IN ('failed', 'unknown')

-- name: send_again
UPDATE notice SET state = 'due', due = now(), made = now(), detail = '' WHERE id = $1 AND state IN ('failed', 'unknown')

-- name: drop_old_notices
DELETE FROM notice WHERE made < $1
