-- The live jobs of a teamspace, for listings: what stands in other teamspaces' queues is not read for them. Noops, which
-- come in masses and end at once, are left out and cost what they did.
CREATE INDEX job_by_teamspace ON job (teamspace, (-id)) WHERE kind <> 0;
