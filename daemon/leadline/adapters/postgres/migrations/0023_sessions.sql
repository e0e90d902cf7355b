-- Who may use the pages in a browser. Links and sessions are found by the hashes of their secrets, which are nowhere.

-- A link is gone when it was taken.
CREATE TABLE sign_in_link (
    hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    person text NOT NULL,
    role text NOT NULL CHECK (role IN ('member', 'admin', 'super_admin')),
    teamspace text,
    created timestamptz NOT NULL,
    expires timestamptz NOT NULL
);
COMMENT ON COLUMN sign_in_link.teamspace IS 'the only one that the person will see; null: all';

CREATE TABLE sign_in_session (
    hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    person text NOT NULL,
    role text NOT NULL CHECK (role IN ('member', 'admin', 'super_admin')),
    teamspace text,
    created timestamptz NOT NULL,
    expires timestamptz NOT NULL
);
COMMENT ON COLUMN sign_in_session.teamspace IS 'the only one that the person sees; null: all';

-- What has expired is forgotten, oldest first, whenever something is added.
CREATE INDEX sign_in_link_expires ON sign_in_link (expires);
CREATE INDEX sign_in_session_expires ON sign_in_session (expires);
