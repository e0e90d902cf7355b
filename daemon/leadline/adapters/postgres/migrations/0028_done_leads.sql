-- Leads of a job that are done, where there is no more to say of them: a bit each, by the lead's number, 1,024 to a row.
-- That is nearly all of them, and a row of lead_result each took a hundred bytes, and a good part of the time in which
-- results are stored. Those of earlier versions stay in lead_result.
CREATE TABLE lead_done (
    job bigint NOT NULL,
    block bigint NOT NULL,
    leads bit(1024) NOT NULL,
    PRIMARY KEY (job, block)
) WITH (fillfactor = 70);
COMMENT ON COLUMN lead_done.block IS 'the number of its leads without its last ten bits, which are their places';

-- leads_are_done: note leads, of each block those whose bit is set. None can be done a second time; that none has a row
-- of lead_result besides is left to the claim of the attempt, which alone stores results.
CREATE FUNCTION leads_are_done(of_job bigint, blocks bigint[], bits bit varying[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE noted bigint;
BEGIN
    INSERT INTO lead_done (job, block, leads)
    SELECT of_job, block, leads FROM unnest(blocks, bits) AS given (block, leads)
    ON CONFLICT (job, block) DO UPDATE SET leads = lead_done.leads | excluded.leads
    WHERE bit_count(lead_done.leads & excluded.leads) = 0;
    GET DIAGNOSTICS noted = ROW_COUNT;
    IF noted < cardinality(blocks) THEN
        RAISE unique_violation USING MESSAGE = format('leads of job %s have a result already', of_job);
    END IF;
END $$;
