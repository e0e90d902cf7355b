-- What leads cost. All amounts are exact decimals.

-- What a call in flight may come to at most. When it ends that becomes nothing, as the ledger knows then what it has come
-- to; but it stays where nobody learns that. Such a call was perhaps charged.
ALTER TABLE call ADD COLUMN credits numeric NOT NULL DEFAULT 0;
CREATE INDEX call_perhaps_charged_by_job ON call (job) WHERE credits > 0;
CREATE INDEX call_perhaps_charged_by_time ON call (sent) WHERE credits > 0;

-- The ledger: what a provider account was owed for a lead of a job, stored together with what it was owed for. `answer`
-- says how far the account is with the lead: open, none (it has no result for it), or result. One that has nothing to be
-- owed is here only where several providers are asked one after the other. `run` is the first of a job and its reruns.
CREATE TABLE charge (
    job bigint NOT NULL,
    lead bigint NOT NULL,
    run bigint NOT NULL,
    at bigint NOT NULL,
    credits numeric NOT NULL CHECK (credits >= 0),
    account text NOT NULL,
    answer text NOT NULL CHECK (answer IN ('open', 'none', 'result')),
    reason text,
    PRIMARY KEY (job, lead, account)
);
CREATE INDEX charge_by_run ON charge (run, lead) WHERE run <> job;
COMMENT ON COLUMN charge.at IS 'microseconds of Unix time: of the last answer';

-- Sums of the ledger: what a job has spent at an account in a month (its first day, in UTC), and by how many answers.
-- Written with the ledger, so that nobody has to go through millions of leads to know what a month has cost.
CREATE TABLE spending (
    month date NOT NULL,
    job bigint NOT NULL,
    calls bigint NOT NULL,
    credits numeric NOT NULL,
    account text NOT NULL,
    teamspace text NOT NULL,
    PRIMARY KEY (job, account, month)
);
CREATE INDEX spending_by_month ON spending (month, teamspace, account);

-- With which account an order was placed; empty before this release, when there was one for each job.
ALTER TABLE lead_order ADD COLUMN account text NOT NULL DEFAULT '';
