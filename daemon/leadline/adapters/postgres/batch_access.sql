-- The statements by which login roles for the queries of batch jobs are made. %I and %L stand for what `format` fills in.

-- name: reader_rights
-- Whether we may make roles at all, whether there is the role $1, and where its views are.
SELECT rolcreaterole OR rolsuper AS makes_roles, current_schema() AS schema,
    EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS made
FROM pg_roles WHERE rolname = current_user

-- name: create_reader
SELECT format('CREATE ROLE %I LOGIN CONNECTION LIMIT 8', $1::text)

-- name: set_reader_password
SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)

-- name: grant_schema
SELECT format('GRANT USAGE ON SCHEMA %I TO %I', $2::text, $1::text)

-- name: grant_views
SELECT format('GRANT SELECT ON %1$I.leads, %1$I.lead_tables TO %2$I', $2::text, $1::text)

-- name: store_reader
INSERT INTO batch_reader (role, teamspace) VALUES ($1, $2) ON CONFLICT (teamspace) DO UPDATE SET role = EXCLUDED.role

-- name: let_change
SELECT format('GRANT UPDATE ON %I.leads TO %I', current_schema(), $1::text)

-- name: let_read
SELECT format('REVOKE UPDATE ON %I.leads FROM %I', current_schema(), $1::text)

-- name: store_changes
-- Whether what transaction $1 has put down is carried over; not where another is at one of the leads.
SELECT store_lead_changes($1::text::xid8)

-- name: forget_changes
DELETE FROM lead_change WHERE transaction = $1::text::xid8

-- name: forget_all_changes
-- Of queries of daemons before, which nobody will carry over.
DELETE FROM lead_change
