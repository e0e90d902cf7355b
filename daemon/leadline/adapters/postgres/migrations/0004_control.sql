-- What people have changed by hand, and who had the daemon do what.

-- Limits that were set in the running daemon. They lie over what the configuration says, of a plan or of one teamspace.
CREATE TABLE plan_override (
    scope text NOT NULL CHECK (scope IN ('plan', 'teamspace')),
    name text NOT NULL,
    key text NOT NULL,
    value jsonb NOT NULL,
    uid bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (scope, name, key)
);

-- Every operation that changed something: whose connection it came on, and the person whom that vouched for.
CREATE TABLE audit (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at bigint NOT NULL,
    uid bigint NOT NULL,
    pid bigint NOT NULL,
    person text,
    role text,
    op text NOT NULL,
    target text NOT NULL,
    detail text NOT NULL
);
COMMENT ON COLUMN audit.person IS 'null: the operator';
CREATE INDEX audit_by_target ON audit (target, n);
CREATE INDEX audit_by_time ON audit (at);
