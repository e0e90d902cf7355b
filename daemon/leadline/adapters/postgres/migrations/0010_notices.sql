-- Notices of jobs by mail and webhook.

-- Whom to tell of a job, stored with its admission; `events` are the words of what is to be told.
CREATE TABLE notice_wish (
    job bigint NOT NULL,
    medium text NOT NULL CHECK (medium IN ('webhook', 'mail')),
    target text NOT NULL,
    events text[] NOT NULL,
    PRIMARY KEY (job, medium, target)
);

-- The outbox: a row is written in the transaction that stores what it tells of. It is `due` until it is `sent`, or given
-- up (`failed`); `sending` is stored before anything leaves. A mail of which nobody knows whether it left is `unknown`,
-- and stays so until a person decides.
CREATE TABLE notice (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    job bigint NOT NULL,
    teamspace text NOT NULL,
    event text NOT NULL,
    medium text NOT NULL,
    target text NOT NULL,
    state text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'sending', 'sent', 'failed', 'unknown')),
    tries integer NOT NULL DEFAULT 0,
    made timestamptz NOT NULL DEFAULT now(),
    due timestamptz NOT NULL DEFAULT now(),
    detail text NOT NULL DEFAULT ''
);
CREATE INDEX notice_due ON notice (due) WHERE state = 'due';
CREATE INDEX notice_open ON notice (made) WHERE state <> 'sent';
CREATE INDEX notice_by_job ON notice (job);
CREATE INDEX notice_made ON notice (made);
