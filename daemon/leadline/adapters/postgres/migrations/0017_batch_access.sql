-- What the queries of batch jobs see: of its teamspace's leads each what its own login role is shown.

CREATE TABLE batch_reader (
    role name PRIMARY KEY,
    teamspace text NOT NULL UNIQUE
);

-- Who has logged in is not changed by anything that can be said in a session, but by superusers. With security_barrier no
-- condition of a query is tried on a row that is not shown, so none can tell of it by failing.
CREATE VIEW leads WITH (security_barrier) AS
SELECT lead_table.name AS table_name, lead.id, lead.data
FROM lead_table JOIN lead ON lead.table_id = lead_table.id AND lead.id >= lead_table.first_lead
WHERE lead_table.teamspace = (SELECT teamspace FROM batch_reader WHERE role = session_user);

CREATE VIEW lead_tables WITH (security_barrier) AS
SELECT name, columns, created
FROM lead_table
WHERE teamspace = (SELECT teamspace FROM batch_reader WHERE role = session_user);
