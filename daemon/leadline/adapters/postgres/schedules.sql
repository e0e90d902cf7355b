-- The statements of schedules.

-- name: fire_occurrence
-- Job $3 is what schedule $1 submits for the time $2; part of its admission. A schedule that was deleted meanwhile has
-- no history; a second job for one time cannot be stored.
WITH decided AS (
    UPDATE schedule SET decided = greatest(decided, $2) WHERE id = $1 RETURNING id
)
INSERT INTO occurrence (schedule, at, verdict, job) SELECT id, $2, 'run', $3::bigint FROM decided

-- name: skip_occurrences
-- Times of schedule $1 at which nothing was submitted.
WITH decided AS (
    UPDATE schedule SET decided = greatest(decided, (SELECT max(at) FROM unnest($2::bigint[]) AS given (at)))
    WHERE id = $1 RETURNING id
)
INSERT INTO occurrence (schedule, at, verdict, message)
SELECT id, at, verdict, nullif(message, '')
FROM decided CROSS JOIN unnest($2::bigint[], $3::text[], $4::text[]) AS given (at, verdict, message)

-- name: active_schedules
SELECT *, (SELECT job FROM occurrence WHERE schedule = schedule.id AND job IS NOT NULL ORDER BY at DESC LIMIT 1) AS job
FROM schedule WHERE NOT paused AND ($1::text IS NULL OR (teamspace = $1 AND name = $2::text))

-- name: page_of_schedules
-- By teamspace and name, from behind ($3, $4) on: of all, of one teamspace, or one of them.
SELECT *, NULL::bigint AS job FROM schedule
WHERE ($1::text IS NULL OR teamspace = $1) AND ($2::text IS NULL OR name = $2)
    AND ($3::text IS NULL OR (teamspace, name) > ($3, $4))
ORDER BY teamspace, name LIMIT $5

-- name: add_schedule
INSERT INTO schedule (teamspace, name, timetable, submission, missed, overlap, decided, uid)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (teamspace, name) DO NOTHING RETURNING id

-- name: pause_schedule
UPDATE schedule SET paused = true WHERE teamspace = $1 AND name = $2 RETURNING id

-- name: resume_schedule
-- What was due while it was paused was not missed: it is in force again from the moment $3.
UPDATE schedule SET paused = false, decided = CASE WHEN paused THEN greatest(decided, $3) ELSE decided END
WHERE teamspace = $1 AND name = $2 RETURNING id

-- name: delete_schedule
WITH gone AS (
    DELETE FROM schedule WHERE teamspace = $1 AND name = $2 RETURNING id
), forgotten AS (
    DELETE FROM occurrence USING gone WHERE occurrence.schedule = gone.id
)
SELECT id FROM gone

-- name: occurrences
SELECT at, verdict, job, message FROM occurrence WHERE schedule = $1 ORDER BY at DESC LIMIT $2

-- name: drop_old_occurrences
-- But for the newest job of each: whether it still runs is asked. And what became of one that was deleted as it fired.
DELETE FROM occurrence
WHERE at < $1 AND (
    job IS NULL
    OR EXISTS (
        SELECT FROM occurrence AS newer
        WHERE newer.schedule = occurrence.schedule AND newer.at > occurrence.at AND newer.job IS NOT NULL
    )
) OR NOT EXISTS (SELECT FROM schedule WHERE schedule.id = occurrence.schedule)
