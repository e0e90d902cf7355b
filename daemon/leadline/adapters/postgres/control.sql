-- The statements of control: overrides, the audit trail, and who submitted what.

-- name: overrides
SELECT scope, name, key, value::text AS value FROM plan_override ORDER BY scope, name, key

-- name: set_override
INSERT INTO plan_override (scope, name, key, value, uid, at) VALUES ($1, $2, $3, $4::text::jsonb, $5, $6)
ON CONFLICT (scope, name, key) DO UPDATE SET value = excluded.value, uid = excluded.uid, at = excluded.at

-- name: take_override_back
DELETE FROM plan_override WHERE scope = $1 AND name = $2 AND key = $3

-- name: record_act
INSERT INTO audit (at, uid, pid, person, role, op, target, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: acts
SELECT at, uid, pid, person, role, op, target, detail FROM audit WHERE target = $1 ORDER BY n

-- name: submitters
SELECT id, uid FROM job_ended WHERE id = ANY ($1::bigint[])

-- name: drop_old_acts
DELETE FROM audit WHERE at < $1
