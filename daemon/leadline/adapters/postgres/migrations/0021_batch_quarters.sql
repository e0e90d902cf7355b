-- What batch jobs have used, by quarters of an hour: who submits a run asks for the sums of a day, and a day may have tens
-- of thousands of runs. In every zone a day begins with such a quarter. The database adds them up itself, in the
-- transaction that changes a run or an attempt, so they are right whoever writes.
CREATE TABLE batch_quarter (
    teamspace text NOT NULL,
    quarter bigint NOT NULL,
    batch_job bigint NOT NULL,
    executions bigint NOT NULL,
    recorded_ms bigint NOT NULL,
    in_progress_ms bigint NOT NULL,
    PRIMARY KEY (teamspace, quarter, batch_job)
);
COMMENT ON COLUMN batch_quarter.quarter IS 'quarters of an hour of Unix time, in which the executions started';
COMMENT ON COLUMN batch_quarter.in_progress_ms IS 'what attempts that have not ended were given';

-- add_to_quarter: count these for a run, as far as it has started.
CREATE FUNCTION add_to_quarter(run batch_run, executions bigint, recorded_ms bigint, in_progress_ms bigint) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT
BEGIN ATOMIC
    INSERT INTO batch_quarter AS sums (teamspace, quarter, batch_job, executions, recorded_ms, in_progress_ms)
    SELECT (run).teamspace, (run).started / 900000000, (run).batch_job, $2, $3, $4 WHERE (run).started IS NOT NULL
    ON CONFLICT (teamspace, quarter, batch_job) DO UPDATE SET
        executions = sums.executions + excluded.executions, recorded_ms = sums.recorded_ms + excluded.recorded_ms,
        in_progress_ms = sums.in_progress_ms + excluded.in_progress_ms;
END;

CREATE FUNCTION count_run() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM add_to_quarter(NEW, 1, 0, 0);
    RETURN NULL;
END $$;

CREATE FUNCTION count_attempt() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    run batch_run;
BEGIN
    SELECT * INTO run FROM batch_run WHERE job = NEW.job;
    IF TG_OP = 'INSERT' AND NEW.real_ms IS NULL THEN
        PERFORM add_to_quarter(run, 0, 0, NEW.cap_ms);
    ELSIF TG_OP = 'INSERT' THEN
        PERFORM add_to_quarter(run, 0, NEW.real_ms, 0);
    ELSE
        PERFORM add_to_quarter(run, 0, NEW.real_ms, -OLD.cap_ms);
    END IF;
    RETURN NULL;
END $$;

INSERT INTO batch_quarter (teamspace, quarter, batch_job, executions, recorded_ms, in_progress_ms)
SELECT run.teamspace, run.started / 900000000, run.batch_job, count(DISTINCT run.job),
    coalesce(sum(attempt.real_ms), 0), coalesce(sum(attempt.cap_ms) FILTER (WHERE attempt.real_ms IS NULL), 0)
FROM batch_run AS run LEFT JOIN batch_attempt AS attempt USING (job)
WHERE run.started IS NOT NULL
GROUP BY 1, 2, 3;

CREATE TRIGGER counted AFTER UPDATE OF started ON batch_run FOR EACH ROW
WHEN (OLD.started IS NULL AND NEW.started IS NOT NULL) EXECUTE FUNCTION count_run();
CREATE TRIGGER counted AFTER INSERT ON batch_attempt FOR EACH ROW EXECUTE FUNCTION count_attempt();
CREATE TRIGGER recorded AFTER UPDATE OF real_ms ON batch_attempt FOR EACH ROW
WHEN (OLD.real_ms IS NULL AND NEW.real_ms IS NOT NULL) EXECUTE FUNCTION count_attempt();
