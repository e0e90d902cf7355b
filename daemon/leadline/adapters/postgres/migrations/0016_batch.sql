-- Batch jobs: Python of the teamspaces' own, its versions and settings, and what has become of each run.

CREATE TABLE batch_job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    teamspace text NOT NULL,
    name text NOT NULL,
    state text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'published', 'unpublished')),
    version integer NOT NULL DEFAULT 0,
    api boolean NOT NULL,
    timeout_ms bigint NOT NULL,
    retries integer NOT NULL,
    retry_timeouts boolean NOT NULL,
    stall_after_seconds integer,
    interpreter text,
    mail_success text[] NOT NULL DEFAULT '{}',
    mail_failure text[] NOT NULL DEFAULT '{}',
    created timestamptz NOT NULL DEFAULT now(),
    UNIQUE (teamspace, name)
);
COMMENT ON COLUMN batch_job.version IS 'the newest of its code, which is what runs; 0: there is none';

-- Each zip as it was uploaded: they are small, and so the database is all that there is to be backed up.
CREATE TABLE batch_version (
    batch_job bigint NOT NULL,
    version integer NOT NULL,
    archive bytea NOT NULL,
    sha256 bytea NOT NULL,
    files integer NOT NULL,
    takes_event boolean NOT NULL,
    requirements bytea,
    uploaded timestamptz NOT NULL DEFAULT now(),
    uid bigint NOT NULL,
    PRIMARY KEY (batch_job, version)
);
ALTER TABLE batch_version ALTER COLUMN archive SET STORAGE EXTERNAL;  -- it is packed already
COMMENT ON COLUMN batch_version.requirements IS 'its requirements.txt';

-- Values are sealed: whoever reads the database, or a backup of it, does not read them.
CREATE TABLE batch_setting (
    batch_job bigint NOT NULL,
    name text NOT NULL,
    secret boolean NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (batch_job, name)
);

-- One row for each job of the kind batch, written as it is admitted; what has started is the day ledger of its
-- teamspace. `due`, `started` and `ended` are microseconds of Unix time.
CREATE TABLE batch_run (
    job bigint PRIMARY KEY,
    batch_job bigint NOT NULL,
    teamspace text NOT NULL,
    due bigint,
    token bytea NOT NULL,
    version integer,
    started bigint,
    ended bigint,
    state text,
    reason text,
    message text,
    result text
);
CREATE INDEX batch_run_waiting ON batch_run (teamspace) WHERE started IS NULL AND ended IS NULL;
CREATE INDEX batch_run_open ON batch_run (teamspace) WHERE started IS NOT NULL AND ended IS NULL;
CREATE UNIQUE INDEX batch_run_by_token ON batch_run (token);
CREATE INDEX batch_run_by_start ON batch_run (teamspace, started);
CREATE INDEX batch_run_by_batch_job ON batch_run (batch_job, job);
COMMENT ON COLUMN batch_run.due IS 'the time of a schedule that it is for; null: somebody has submitted it';
COMMENT ON COLUMN batch_run.token IS 'by which it is known before it has a number, and its attempts to the runner';
COMMENT ON COLUMN batch_run.state IS 'with reason and message: how its job ends, once that is decided';

-- The attempts of what has started: the first, and its retries.
CREATE TABLE batch_attempt (
    job bigint NOT NULL,
    retry integer NOT NULL,
    began bigint NOT NULL,
    timeout_ms bigint NOT NULL,
    cap_ms bigint NOT NULL,
    real_ms bigint,
    ending text,
    PRIMARY KEY (job, retry)
);
COMMENT ON COLUMN batch_attempt.real_ms IS 'what it took; null: it has not ended';

-- Mails that code has sent, each once for its question; the outbox sends one to each recipient.
CREATE TABLE batch_mail (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job bigint NOT NULL,
    retry integer NOT NULL,
    question bigint NOT NULL,
    subject text NOT NULL,
    body text NOT NULL,
    html boolean NOT NULL,
    UNIQUE (job, retry, question)
);
ALTER TABLE notice ADD COLUMN batch_mail bigint;
COMMENT ON COLUMN notice.batch_mail IS 'what it says, where code has written it';

-- What they have printed.
CREATE TABLE batch_line (
    job bigint NOT NULL,
    retry integer NOT NULL,
    n integer NOT NULL,
    at bigint NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (job, retry, n)
);
