-- lay_cells: lay cells, an object by the number of the lead, over those of leads of a table or, where what is already
-- there wins, beneath them. Each lead is found by its key and finds its cells in the object: there is nothing to join,
-- which took a quarter of the time, and so no way of joining for the planner to get wrong. write_cells stays for a daemon
-- of before that still runs.
CREATE FUNCTION lay_cells(of_table bigint, leads bigint[], cells jsonb, beneath boolean) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan TO off AS $$
BEGIN
    IF beneath THEN
        UPDATE lead SET data = (cells -> id::text) || data WHERE table_id = of_table AND id = ANY (leads);
    ELSE
        UPDATE lead SET data = data || (cells -> id::text) WHERE table_id = of_table AND id = ANY (leads);
    END IF;
END $$;
