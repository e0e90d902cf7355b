-- API tokens. What a secret opens is found by the secret's hash; the secret itself is nowhere.

-- One row for each secret: after a rotation the one before is taken until it expires. What a secret may do is written
-- with it, so that none ever changes what it may do.
CREATE TABLE api_token (
    hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    name text NOT NULL,
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['submit', 'read', 'control']),
    teamspace text,
    role text NOT NULL CHECK (role IN ('member', 'admin', 'super_admin')),
    created timestamptz NOT NULL,
    expires timestamptz,
    rotated timestamptz
);
COMMENT ON COLUMN api_token.teamspace IS 'the only one that it opens; null: all';
COMMENT ON COLUMN api_token.rotated IS 'when another secret took its place; null: it is the present one';

CREATE UNIQUE INDEX api_token_present ON api_token (name) WHERE rotated IS NULL;
