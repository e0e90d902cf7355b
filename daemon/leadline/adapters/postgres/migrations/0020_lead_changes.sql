-- What the queries of batch jobs change. A tenant's session never writes a lead: what it changes is put down here, seen by
-- its own transaction alone through the view, and carried over by the daemon afterwards, in a transaction that passes the
-- fence. So a query holds no lock that a job waits for, however long it takes, and those of an ex-daemon change nothing.

-- Unlogged: after a crash there is nobody who would carry it over.
CREATE UNLOGGED TABLE lead_change (
    transaction xid8 NOT NULL,
    table_id bigint NOT NULL,
    lead bigint NOT NULL,
    cells jsonb NOT NULL,
    emptied text[] NOT NULL,
    PRIMARY KEY (transaction, table_id, lead)
);
COMMENT ON COLUMN lead_change.cells IS 'what is laid over the cells of the lead, of which those of `emptied` go';

-- The transaction is asked for once, not for each row: that would keep a query from being done in parallel.
CREATE OR REPLACE VIEW leads WITH (security_barrier) AS
SELECT lead_table.name AS table_name, lead.id,
    CASE WHEN change.lead IS NULL THEN lead.data ELSE (lead.data || change.cells) - change.emptied END AS data
FROM lead_table JOIN lead ON lead.table_id = lead_table.id AND lead.id >= lead_table.first_lead
LEFT JOIN lead_change AS change ON change.transaction = (SELECT pg_current_xact_id_if_assigned())
    AND change.table_id = lead.table_id AND change.lead = lead.id
WHERE lead_table.teamspace = (SELECT teamspace FROM batch_reader WHERE role = session_user);

-- fitting_cell: what stands for a value in a column of a type, as features/tables/columns.py has it; NULL where it does not
-- fit. `allowed` is the list of an enum.
CREATE FUNCTION fitting_cell(cell jsonb, type text, allowed jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE type
    WHEN 'number' THEN CASE WHEN jsonb_typeof(cell) = 'number' THEN CASE
        WHEN abs(cell::numeric) >= 1e40 THEN NULL
        WHEN scale(cell::numeric) <= 20 THEN cell
        ELSE to_jsonb(trim_scale(round(cell::numeric, 20)))
    END END
    WHEN 'boolean' THEN CASE WHEN jsonb_typeof(cell) = 'boolean' THEN cell END
    WHEN 'text' THEN CASE
        WHEN jsonb_typeof(cell) = 'string' AND length(cell #>> '{}') <= 32768 AND (allowed IS NULL OR allowed @> cell) THEN cell
    END
    WHEN 'date' THEN CASE WHEN jsonb_typeof(cell) = 'string' THEN to_jsonb(to_char(as_date(cell), 'YYYY-MM-DD')) END
    WHEN 'timestamp' THEN CASE WHEN jsonb_typeof(cell) = 'string' THEN to_jsonb(as_text(as_timestamp(cell))) END
    WHEN 'json' THEN CASE WHEN length(cell::text) <= 32768 THEN cell END
END;

-- change_lead: what an UPDATE of the view does with a row. Cells that stay as they are may be what they are, also where
-- they do not fit: so they were uploaded.
CREATE FUNCTION change_lead() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    lead_name text := format('lead %s of table %s', OLD.id, OLD.table_name);
    number bigint;
    declared jsonb;
    cell record;
    fitting jsonb;
    changed jsonb := '{}';
    gone text[] := '{}';
BEGIN
    IF NEW.id IS DISTINCT FROM OLD.id OR NEW.table_name IS DISTINCT FROM OLD.table_name THEN
        RAISE EXCEPTION '%: its id and its table cannot be changed, only data', lead_name;
    END IF;
    IF coalesce(jsonb_typeof(NEW.data), 'null') <> 'object' THEN
        RAISE EXCEPTION '%: data must be a JSON object', lead_name;
    END IF;
    SELECT of_table.id, of_table.columns INTO STRICT number, declared
    FROM batch_reader AS reader JOIN lead_table AS of_table USING (teamspace)
    WHERE reader.role = session_user AND of_table.name = OLD.table_name;
    FOR cell IN
        SELECT name, coalesce(after.value, 'null') AS value, spec -> 'type' IS NOT NULL AS known,
            spec ->> 'type' AS type, NULLIF(spec -> 'allowed', '[]') AS allowed
        FROM jsonb_each(OLD.data) AS before (name, value)
        FULL JOIN jsonb_each(NEW.data) AS after (name, value) USING (name)
        LEFT JOIN jsonb_array_elements(declared) AS spec ON spec ->> 'name' = name
        WHERE coalesce(before.value, 'null') <> coalesce(after.value, 'null')
    LOOP
        IF NOT cell.known THEN
            RAISE EXCEPTION '%: the table has no column %', lead_name, quote_ident(left(cell.name, 63));
        END IF;
        IF cell.value = 'null' OR (cell.value = '""' AND cell.type = 'text') THEN
            gone := gone || cell.name;
            CONTINUE;
        END IF;
        fitting := fitting_cell(cell.value, cell.type, cell.allowed);
        IF fitting IS NULL THEN
            RAISE EXCEPTION '%: % is nothing for column %, which is %', lead_name, left(cell.value::text, 40), cell.name,
                coalesce('one of ' || cell.allowed::text, cell.type);
        END IF;
        changed := changed || jsonb_build_object(cell.name, fitting);
    END LOOP;
    IF changed <> '{}' OR gone <> '{}' THEN
        INSERT INTO lead_change AS change (transaction, table_id, lead, cells, emptied)
        VALUES (pg_current_xact_id(), number, OLD.id, changed, gone)
        ON CONFLICT (transaction, table_id, lead) DO UPDATE SET
            cells = (change.cells || excluded.cells) - excluded.emptied,
            emptied = ARRAY(SELECT unnest(change.emptied) EXCEPT SELECT jsonb_object_keys(excluded.cells)) || excluded.emptied;
    END IF;
    NEW.data := (OLD.data || changed) - gone;
    RETURN NEW;
END $$;

-- check_lead_changes: after each UPDATE, whether its query has changed no more than one may.
CREATE FUNCTION check_lead_changes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    changes bigint;
    bytes bigint;
BEGIN
    SELECT count(*), sum(octet_length(cells::text)) INTO changes, bytes
    FROM lead_change WHERE transaction = pg_current_xact_id_if_assigned();
    IF changes > 10000 OR bytes > 16777216 THEN
        RAISE EXCEPTION 'a query may change at most 10,000 leads and 16 MiB of data';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER change INSTEAD OF UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION change_lead();
CREATE TRIGGER checked AFTER UPDATE ON leads FOR EACH STATEMENT EXECUTE FUNCTION check_lead_changes();

-- store_lead_changes: carry over what a transaction has put down; of leads that are gone nothing. It waits for nobody:
-- where another transaction is at one of the leads it does nothing and says false. Joins are shut as in 0014.
CREATE FUNCTION store_lead_changes(of_transaction xid8) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_hashjoin TO off SET enable_mergejoin TO off SET enable_seqscan TO off AS $$
DECLARE
    present bigint;
    held bigint;
BEGIN
    SELECT count(*) INTO present
    FROM lead_change AS change JOIN lead ON lead.table_id = change.table_id AND lead.id = change.lead
    WHERE change.transaction = of_transaction;
    SELECT count(*) INTO held FROM (
        SELECT FROM lead_change AS change JOIN lead ON lead.table_id = change.table_id AND lead.id = change.lead
        WHERE change.transaction = of_transaction
        FOR NO KEY UPDATE OF lead SKIP LOCKED
    ) AS lead;
    IF held < present THEN
        RETURN false;
    END IF;
    UPDATE lead SET data = (lead.data || change.cells) - change.emptied
    FROM lead_change AS change
    WHERE change.transaction = of_transaction AND lead.table_id = change.table_id AND lead.id = change.lead;
    DELETE FROM lead_change WHERE transaction = of_transaction;
    RETURN true;
END $$;

REVOKE ALL ON FUNCTION change_lead, check_lead_changes, store_lead_changes FROM PUBLIC;

-- Who calls them may have made tables of his own, in a schema that comes first unless it is named.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION change_lead SET search_path TO %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION check_lead_changes SET search_path TO %I, pg_temp', current_schema());
END $$;
