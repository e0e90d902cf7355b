-- Why leads of a job were not done, counted: nobody has to go through millions of results to say so.

-- A row for each reason, written with the results that it counts. `samples` are the first few of those leads, or rows of
-- the file where the job is an upload, and `details` what there is to say of each.
CREATE TABLE lead_error (
    job bigint NOT NULL,
    leads bigint NOT NULL,
    of_file boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('failed', 'skipped', 'unknown')),
    reason text NOT NULL,
    samples bigint[] NOT NULL,
    details text[] NOT NULL CHECK (cardinality(details) = cardinality(samples)),
    PRIMARY KEY (job, state, reason)
);

INSERT INTO lead_error (job, leads, of_file, state, reason, samples, details)
SELECT job, count(*), false, state, reason, (array_agg(lead))[:3], (array_agg(coalesce(detail, '')))[:3]
FROM lead_result WHERE state <> 'done' AND reason IS NOT NULL GROUP BY job, state, reason;

INSERT INTO lead_error (job, leads, of_file, state, reason, samples, details)
SELECT job, count(*), true, 'failed', reason, (array_agg(row_number))[:3], (array_agg(detail))[:3]
FROM refused_row WHERE row_number > 0 GROUP BY job, reason;
