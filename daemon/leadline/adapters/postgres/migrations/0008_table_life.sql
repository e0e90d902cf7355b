-- The life of a table: how long its leads stay, and its end.

ALTER TABLE lead_table ADD COLUMN first_lead bigint NOT NULL DEFAULT 1;
ALTER TABLE lead_table ADD COLUMN retention_days integer CHECK (retention_days > 0);
COMMENT ON COLUMN lead_table.first_lead IS 'the leads are those from here to next_lead: they go from the oldest on';
COMMENT ON COLUMN lead_table.retention_days IS 'leads go so many days after they were added; null: they stay';

-- Which lead was the first that a day (in UTC) brought. Leads are numbered in the order of their coming, so this is the
-- age of all of them, without a column in each. Those that are there already count as new.
CREATE TABLE lead_day (
    table_id bigint NOT NULL,
    day date NOT NULL,
    first_lead bigint NOT NULL,
    PRIMARY KEY (table_id, day)
);
INSERT INTO lead_day (table_id, day, first_lead) SELECT id, (now() AT TIME ZONE 'UTC')::date, 1 FROM lead_table;

-- Tables that are gone for everybody. Their leads go bit by bit; what is not swept yet goes on after a crash. The row
-- stays a while for jobs that were on their way to the table.
CREATE TABLE deleted_table (
    id bigint PRIMARY KEY,
    teamspace text NOT NULL,
    name text NOT NULL,
    first_lead bigint NOT NULL,
    next_lead bigint NOT NULL,
    deleted timestamptz NOT NULL DEFAULT now(),
    swept boolean NOT NULL DEFAULT false
);
CREATE INDEX deleted_table_to_sweep ON deleted_table (id) WHERE NOT swept;
