-- The statements of API tokens.

-- name: tokens
SELECT hash, name, scopes, teamspace, role, created, expires, rotated FROM api_token ORDER BY name, created

-- name: add_token
INSERT INTO api_token (hash, name, scopes, teamspace, role, created, expires) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (name) WHERE rotated IS NULL DO NOTHING

-- name: rotate_token
UPDATE api_token SET rotated = $2, expires = least(expires, $3) WHERE name = $1 AND rotated IS NULL

-- name: drop_old_secrets
DELETE FROM api_token WHERE name = $1 AND rotated IS NOT NULL AND expires <= $2

-- name: revoke_token
DELETE FROM api_token WHERE name = $1
