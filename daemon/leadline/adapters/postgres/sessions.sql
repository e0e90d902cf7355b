-- The statements of links to sign in by, and of sessions.

-- name: add_link
INSERT INTO sign_in_link (hash, person, role, teamspace, created, expires) VALUES ($1, $2, $3, $4, $5, $6)

-- name: link
SELECT hash, person, role, teamspace, created, expires FROM sign_in_link WHERE hash = $1

-- name: take_link
WITH taken AS (
    DELETE FROM sign_in_link WHERE hash = $1 AND expires > $3 RETURNING person, role, teamspace
)
INSERT INTO sign_in_session (hash, person, role, teamspace, created, expires)
SELECT $2, person, role, teamspace, $3, $4 FROM taken
RETURNING hash, person, role, teamspace, expires

-- name: session
SELECT hash, person, role, teamspace, expires FROM sign_in_session WHERE hash = $1

-- name: end_session
DELETE FROM sign_in_session WHERE hash = $1

-- name: end_links_of
DELETE FROM sign_in_link WHERE ($1::text IS NULL OR person = $1) AND ($2::text IS NULL OR teamspace = $2)

-- name: end_sessions_of
WITH ended AS (
    DELETE FROM sign_in_session
    WHERE ($1::text IS NULL OR person = $1) AND ($2::text IS NULL OR teamspace = $2)
    RETURNING expires
)
SELECT count(*) FROM ended WHERE expires > $3

-- name: drop_expired_links
DELETE FROM sign_in_link WHERE hash IN (
    SELECT hash FROM sign_in_link WHERE expires <= $1 ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: drop_expired_sessions
DELETE FROM sign_in_session WHERE hash IN (
    SELECT hash FROM sign_in_session WHERE expires <= $1 ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED
)
