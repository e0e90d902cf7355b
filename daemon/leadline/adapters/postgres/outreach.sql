-- The statements of outreach.

-- name: queue_follow_up
-- Job $1 is the task of follow-up $2 at step $3, with a place in the line at $4; now it is $5. $6: the associate that takes
-- it, where it had none.
WITH queued AS (
    UPDATE follow_up
    SET status = 'queued', reason = NULL, job = $1, place = $4, turn = $4, associate = coalesce($6, associate)
    WHERE id = $2 AND step = $3 AND status = 'pending'
    RETURNING id
)
INSERT INTO follow_up_history (follow_up, at, status, detail)
SELECT id, $5, 'queued', 'job ' || $1::bigint FROM queued

-- name: add_outreach
INSERT INTO outreach (teamspace) VALUES ($1) ON CONFLICT DO NOTHING RETURNING teamspace

-- name: is_scheduled
SELECT scheduled FROM outreach WHERE teamspace = $1

-- name: set_scheduled
UPDATE outreach SET scheduled = true WHERE teamspace = $1 RETURNING teamspace

-- name: turn
SELECT turn FROM outreach WHERE teamspace = $1

-- name: hold_outreach
-- Nothing comes in about the contacts of teamspace $1 until the transaction ends.
SELECT turn FROM outreach WHERE teamspace = $1 FOR SHARE

-- name: lock_outreach
-- No mail of teamspace $1 is decided until the transaction ends.
SELECT turn FROM outreach WHERE teamspace = $1 FOR UPDATE

-- name: associates
-- By their numbers from behind $3 on: of all, of teamspace $1, or the one of that name.
SELECT * FROM associate
WHERE ($1::text IS NULL OR teamspace = $1) AND ($2::text IS NULL OR name = $2) AND id > $3
ORDER BY id LIMIT $4

-- name: associate_by_id
-- No other mail of its mailbox is decided until the transaction ends.
SELECT * FROM associate WHERE id = $1 FOR UPDATE

-- name: put_associate
-- A password of null stays as it is. `added`: it is new.
INSERT INTO associate (teamspace, name, address, settings, password, active) VALUES ($1, $2, $3, $4::jsonb, $5, $6)
ON CONFLICT (teamspace, name) DO UPDATE
SET address = excluded.address, settings = excluded.settings, active = excluded.active,
    password = coalesce(excluded.password, associate.password)
RETURNING xmax = 0 AS added

-- name: pause_associate
-- Why it is paused, or null: resumed at $3.
UPDATE associate SET paused = $2, resumed = CASE WHEN $2::text IS NULL THEN $3 ELSE resumed END
WHERE id = $1 RETURNING id

-- name: tasks_of_associate
-- In their order; what the mail server did not take has lost its place.
SELECT job FROM follow_up WHERE associate = $1 AND status = 'queued' ORDER BY place NULLS FIRST, id

-- name: mailbox_sent
-- Mails of each mailbox of $1 by day, since day $2.
SELECT associate, day, count(*) AS mails FROM mail
WHERE associate = ANY($1::bigint[]) AND day >= $2 AND state IN ('sending', 'sent', 'unknown')
GROUP BY associate, day

-- name: mailbox_days
SELECT associate, count(*) AS days FROM mailbox_day WHERE associate = ANY($1::bigint[]) GROUP BY associate

-- name: mailbox_places
-- Places in the lines of $1, without that of follow-up $2.
SELECT associate, place, turn, first_mail FROM follow_up
WHERE associate = ANY($1::bigint[]) AND place IS NOT NULL AND status = 'queued' AND id <> $2
ORDER BY place

-- name: mailbox_open
-- Which of $1 have a mail on its way.
SELECT DISTINCT associate FROM mail WHERE associate = ANY($1::bigint[]) AND state = 'sending'

-- name: last_ends
SELECT id, last_end FROM associate WHERE id = ANY($1::bigint[])

-- name: scripts
SELECT * FROM script WHERE ($1::text IS NULL OR teamspace = $1) ORDER BY teamspace, name

-- name: script
SELECT * FROM script WHERE teamspace = $1 AND name = $2

-- name: put_script
INSERT INTO script (teamspace, name, keyword, then_script, steps) VALUES ($1, $2, $3, $4, $5::jsonb)
ON CONFLICT (teamspace, name) DO UPDATE
SET keyword = excluded.keyword, then_script = excluded.then_script, steps = excluded.steps
RETURNING xmax = 0 AS added

-- name: add_follow_up
WITH added AS (
    INSERT INTO follow_up (
        teamspace, key, associate, address, domain, fields, zone, script, step, due, created, seed, first_mail
    )
    VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (teamspace, key) DO NOTHING
    RETURNING id, created
)
INSERT INTO follow_up_history (follow_up, at, status, detail)
SELECT id, created, 'pending', 'imported' FROM added RETURNING follow_up

-- name: follow_ups
-- By their numbers from behind $5 on.
SELECT follow_up.*, associate.name AS associate_name
FROM follow_up LEFT JOIN associate ON associate.id = follow_up.associate
WHERE ($1::text IS NULL OR follow_up.teamspace = $1) AND ($2::bigint IS NULL OR associate = $2)
    AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR lower(follow_up.address) = lower($4))
    AND follow_up.id > $5
ORDER BY follow_up.id LIMIT $6

-- name: follow_up_by_id
SELECT follow_up.*, associate.name AS associate_name
FROM follow_up LEFT JOIN associate ON associate.id = follow_up.associate
WHERE follow_up.teamspace = $1 AND follow_up.id = $2

-- name: follow_up_of_task
-- Held as it is.
SELECT * FROM follow_up WHERE job = $1 FOR UPDATE

-- name: follow_up_history
SELECT at, status, detail FROM follow_up_history WHERE follow_up = $1 ORDER BY id

-- name: mails
-- By their numbers from behind $4 on: of teamspace $1, of follow-up $2, in the states $3.
SELECT mail.*, associate.name AS associate_name
FROM mail LEFT JOIN associate ON associate.id = mail.associate
WHERE ($1::text IS NULL OR mail.teamspace = $1) AND ($2::bigint IS NULL OR follow_up = $2)
    AND state = ANY($3::text[]) AND mail.id > $4
ORDER BY mail.id LIMIT $5

-- name: mails_to
-- All that has gone to the contact of a follow-up, oldest first; held as it is.
SELECT mail.*, '' AS associate_name FROM mail WHERE follow_up = $1 ORDER BY id FOR UPDATE

-- name: mail_by_id
SELECT mail.*, associate.name AS associate_name
FROM mail LEFT JOIN associate ON associate.id = mail.associate
WHERE mail.teamspace = $1 AND mail.id = $2

-- name: mails_about
-- Mails of unknown outcome that an event is about: by Message-ID $2, else by the address $3.
SELECT mail.*, associate.name AS associate_name
FROM mail LEFT JOIN associate ON associate.id = mail.associate
WHERE mail.teamspace = $1 AND mail.state = 'unknown'
    AND CASE WHEN $2::text IS NULL THEN lower(mail.address) = lower($3) ELSE mail.message_id = $2 END
ORDER BY mail.id

-- name: due_follow_ups
-- Pending ones of associate $1 whose date has come by $2, oldest first.
SELECT id, teamspace, associate, address, '{}' AS fields, zone, script, round, step, due, created, status, reason, seed, job
FROM follow_up
WHERE associate = $1 AND status = 'pending' AND due <= $2
ORDER BY created, id LIMIT $3

-- name: new_contacts
-- Those of teamspace $1 that wait for their first mail, oldest first.
SELECT id, teamspace, associate, address, '{}' AS fields, zone, script, round, step, due, created, status, reason, seed, job
FROM follow_up
WHERE teamspace = $1 AND associate IS NULL AND status = 'pending' AND due <= $2
ORDER BY created, id LIMIT $3

-- name: set_turn
UPDATE outreach SET turn = $2 WHERE teamspace = $1 RETURNING teamspace

-- name: lost_tasks
-- Follow-ups of teamspace $1, or of all, whose tasks have ended without them, and how; and those whose mail was begun by
-- an attempt that is over: its job is in none of the states $2, or has another attempt.
SELECT follow_up.id, follow_up.status, ended.state, coalesce(ended.message, '') AS message
FROM follow_up LEFT JOIN job_ended AS ended ON ended.id = follow_up.job
WHERE ($1::text IS NULL OR follow_up.teamspace = $1) AND (
    follow_up.status = 'queued' AND NOT EXISTS (SELECT FROM job WHERE job.id = follow_up.job)
    OR follow_up.status = 'sending' AND NOT EXISTS (
        SELECT FROM mail
        JOIN attempt ON attempt.job = mail.job AND attempt.number = mail.attempt
        JOIN job ON job.id = mail.job AND job.state = ANY($2::smallint[])
        WHERE mail.follow_up = follow_up.id AND mail.state = 'sending'
    )
)

-- name: lose_open_mails
-- Mails on their way whose attempts are over.
UPDATE mail SET state = 'unknown', ended = $2, evidence = $3
WHERE follow_up = ANY($1::bigint[]) AND state = 'sending' RETURNING associate, day

-- name: move_follow_up
-- Into state $3 for reason $4, from one of $2; it has a place in the line no longer. What is said is kept with it.
WITH moved AS (
    UPDATE follow_up SET status = $3, reason = $4, place = NULL, turn = NULL WHERE id = $1 AND status = ANY($2::text[]) RETURNING id
)
INSERT INTO follow_up_history (follow_up, at, status, detail)
SELECT id, $6, $3, $5 FROM moved RETURNING follow_up

-- name: go_on_follow_up
-- With step $4 of script $3 at $5, in round $8, from one of the states $2.
WITH moved AS (
    UPDATE follow_up
    SET status = 'pending', reason = NULL, place = NULL, turn = NULL, script = $3, step = $4, due = $5,
        round = $8, first_mail = false
    WHERE id = $1 AND status = ANY($2::text[]) RETURNING id
)
INSERT INTO follow_up_history (follow_up, at, status, detail)
SELECT id, $7, 'pending', $6 FROM moved RETURNING follow_up

-- name: place_follow_up
UPDATE follow_up SET place = $2, turn = $3 WHERE id = $1 RETURNING id

-- name: send_follow_up
UPDATE follow_up SET status = 'sending', place = NULL, turn = NULL WHERE id = $1 AND status = 'queued' RETURNING id

-- name: begin_mail
INSERT INTO mail (
    follow_up, round, step, teamspace, associate, address, domain, message_id, subject, job, attempt, day, began
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING id

-- name: end_mail
-- In state $2, from one of $3.
UPDATE mail SET state = $2, ended = $5, evidence = $4, settled_by = coalesce($6, settled_by)
WHERE id = $1 AND state = ANY($3::text[]) RETURNING follow_up, associate, day

-- name: count_job
-- The counts that job $1 ends with.
UPDATE attempt SET total = $2, done = $3, failed = $4, skipped = $5, unknown = $6 WHERE job = $1

-- name: count_mail
-- What has been sent is part of what a month has cost, though of no credits.
INSERT INTO spending (job, teamspace, month, account, calls, credits)
SELECT job, teamspace, date_trunc('month', to_timestamp(began / 1000000) AT TIME ZONE 'UTC')::date, 'mail', 1, 0
FROM mail WHERE id = $1
ON CONFLICT (job, account, month) DO UPDATE SET calls = spending.calls + 1

-- name: count_day
INSERT INTO mailbox_day (associate, day) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: note_end
UPDATE associate SET last_end = greatest(last_end, $2) WHERE id = $1

-- name: suppressed
-- Why address $2, or domain $3, is not written to.
SELECT reason FROM suppression WHERE teamspace = $1 AND value IN (lower($2), lower($3)) ORDER BY at LIMIT 1

-- name: replied
SELECT max(at) FROM contact_event WHERE teamspace = $1 AND lower(address) = lower($2) AND event = 'reply'

-- name: domain_mails
SELECT count(*) FROM mail
WHERE teamspace = $1 AND domain = $2 AND began >= $3 AND state IN ('sending', 'sent', 'unknown')

-- name: suppress
INSERT INTO suppression (teamspace, value, reason, at, detail) VALUES ($1, lower($2), $3, $4, $5)
ON CONFLICT (teamspace, value) DO NOTHING RETURNING id

-- name: follow_ups_to
-- What is still to be written to the address, or to anybody of the domain, $2.
SELECT id FROM follow_up
WHERE teamspace = $1 AND (lower(address) = lower($2) OR domain = lower($2))
    AND status IN ('pending', 'queued', 'sending', 'unknown')
ORDER BY id FOR UPDATE

-- name: allow
DELETE FROM suppression WHERE teamspace = $1 AND value = lower($2) RETURNING id

-- name: suppressions
SELECT * FROM suppression
WHERE ($1::text IS NULL OR teamspace = $1) AND ($2::text IS NULL OR value = lower($2)) AND id > $3
ORDER BY id LIMIT $4

-- name: add_event
INSERT INTO contact_event (teamspace, key, event, address, message_id, at, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (teamspace, key) DO NOTHING RETURNING id

-- name: drop_old_events
DELETE FROM contact_event WHERE at < $1

-- name: mark_mail
-- What came back, of the newest mail that it may be about.
UPDATE mail SET bounced = bounced OR $4, complained = complained OR $5
WHERE id = (
    SELECT id FROM mail WHERE teamspace = $1 AND state IN ('sent', 'unknown', 'sending')
        AND CASE WHEN $2::text IS NULL THEN lower(address) = lower($3) ELSE message_id = $2 END
    ORDER BY id DESC LIMIT 1
)
RETURNING associate

-- name: last_mails
-- The newest $2 of a mailbox since it was last resumed, newest first.
SELECT bounced, complained FROM mail
WHERE associate = $1 AND state IN ('sent', 'unknown')
    AND began >= (SELECT resumed FROM associate WHERE associate.id = $1)
ORDER BY id DESC LIMIT $2

-- name: mailboxes
-- How many each teamspace has.
SELECT teamspace, count(*) AS mailboxes FROM associate WHERE active GROUP BY teamspace
