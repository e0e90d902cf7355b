-- Outreach: who writes, what, to whom, and each mail that has left or may have.
--
-- Instants are microseconds of Unix time. What is one teamspace's is found by its name.

-- One row for each teamspace that writes. Whoever is about to send holds it FOR SHARE, whoever takes an event or
-- suppresses an address FOR UPDATE: so what was committed before a mail is stored as `sending` is seen by it.
CREATE TABLE outreach (
    teamspace text PRIMARY KEY,
    turn bigint NOT NULL DEFAULT 0,
    scheduled boolean NOT NULL DEFAULT false
);
COMMENT ON COLUMN outreach.turn IS 'the associate that was the last to be given a first mail';
COMMENT ON COLUMN outreach.scheduled IS 'it was given its schedules once: what becomes of them is its own affair';

CREATE TABLE associate (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    teamspace text NOT NULL,
    name text NOT NULL,
    address text NOT NULL,
    settings jsonb NOT NULL,
    password bytea,
    active boolean NOT NULL,
    paused text,
    resumed bigint NOT NULL DEFAULT 0,
    last_end bigint,
    UNIQUE (teamspace, name)
);
COMMENT ON COLUMN associate.settings IS 'what it is and where its mail server is, as JSON';
COMMENT ON COLUMN associate.password IS 'of its mail server, sealed';
COMMENT ON COLUMN associate.resumed IS 'what was sent before that is not held against the mailbox any more';
COMMENT ON COLUMN associate.last_end IS 'when the last mail of the mailbox was over';

CREATE TABLE script (
    teamspace text NOT NULL,
    name text NOT NULL,
    keyword text NOT NULL,
    then_script text,
    steps jsonb NOT NULL,
    PRIMARY KEY (teamspace, name)
);

-- One contact's way through a script. `status` changes by the table of moves of features/outreach/life.py alone.
CREATE TABLE follow_up (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    teamspace text NOT NULL,
    key text NOT NULL,
    associate bigint,
    address text NOT NULL,
    domain text NOT NULL,
    fields jsonb NOT NULL,
    zone text,
    script text,
    round integer NOT NULL DEFAULT 1,
    step integer NOT NULL,
    due bigint NOT NULL,
    created bigint NOT NULL,
    status text NOT NULL DEFAULT 'pending',
    reason text,
    seed bigint NOT NULL,
    first_mail boolean NOT NULL,
    job bigint,
    place bigint,
    turn bigint,
    UNIQUE (teamspace, key)
) WITH (fillfactor = 70);
CREATE INDEX follow_up_due ON follow_up (associate, created, id) WHERE status = 'pending';
CREATE INDEX follow_up_new ON follow_up (teamspace, created, id) WHERE status = 'pending' AND associate IS NULL;
CREATE INDEX follow_up_line ON follow_up (associate, place) WHERE place IS NOT NULL;
CREATE INDEX follow_up_tasks ON follow_up (teamspace, job) WHERE status IN ('queued', 'sending');
CREATE INDEX follow_up_by_address ON follow_up (teamspace, lower(address));
CREATE UNIQUE INDEX follow_up_by_job ON follow_up (job) WHERE job IS NOT NULL;
COMMENT ON COLUMN follow_up.round IS 'how many scripts it has begun: the same may come again';
COMMENT ON COLUMN follow_up.due IS 'the follow_up_date: not before then is its next mail queued';
COMMENT ON COLUMN follow_up.first_mail IS 'its next mail is the first that the contact gets';
COMMENT ON COLUMN follow_up.place IS 'its place in the line of the mailbox, while its next mail is queued';
COMMENT ON COLUMN follow_up.turn IS 'its first place: it goes before those whose turn is later';

CREATE TABLE follow_up_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    follow_up bigint NOT NULL,
    at bigint NOT NULL,
    status text NOT NULL,
    detail text NOT NULL
);
CREATE INDEX follow_up_history_of ON follow_up_history (follow_up, id);

-- Each mail, stored as `sending` before the mail server is told of it. A second one for the same step can only be stored
-- once the one before is known not to have been sent.
CREATE TABLE mail (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    follow_up bigint NOT NULL,
    round integer NOT NULL,
    step integer NOT NULL,
    teamspace text NOT NULL,
    associate bigint NOT NULL,
    address text NOT NULL,
    domain text NOT NULL,
    message_id text NOT NULL,
    subject text NOT NULL,
    state text NOT NULL DEFAULT 'sending',
    job bigint NOT NULL,
    attempt integer NOT NULL,
    day date NOT NULL,
    began bigint NOT NULL,
    ended bigint,
    evidence text NOT NULL DEFAULT '',
    settled_by text,
    bounced boolean NOT NULL DEFAULT false,
    complained boolean NOT NULL DEFAULT false
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX mail_once ON mail (follow_up, round, step) WHERE state IN ('sending', 'sent', 'unknown');
CREATE INDEX mail_by_follow_up ON mail (follow_up, id);
CREATE INDEX mail_by_day ON mail (associate, day) WHERE state IN ('sending', 'sent', 'unknown');
CREATE INDEX mail_by_domain ON mail (teamspace, domain, began) WHERE state IN ('sending', 'sent', 'unknown');
CREATE INDEX mail_open ON mail (associate) WHERE state = 'sending';
CREATE INDEX mail_unknown ON mail (teamspace, id) WHERE state IN ('sending', 'unknown');
CREATE INDEX mail_by_message_id ON mail (teamspace, message_id);
CREATE INDEX mail_by_associate ON mail (associate, id);
COMMENT ON COLUMN mail.state IS 'sending, sent, unknown, refused (for good), not_sent (for now) or withdrawn (by the daemon)';
COMMENT ON COLUMN mail.day IS 'on which it began, in the zone of the associate';

-- Days on which a mailbox has sent anything: its ramp goes by them.
CREATE TABLE mailbox_day (
    associate bigint NOT NULL,
    day date NOT NULL,
    PRIMARY KEY (associate, day)
);

-- What is not written to: an address, or a domain.
CREATE TABLE suppression (
    id bigint GENERATED ALWAYS AS IDENTITY,
    teamspace text NOT NULL,
    value text NOT NULL,
    reason text NOT NULL,
    at bigint NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (teamspace, value)
);
COMMENT ON COLUMN suppression.value IS 'in small letters';

-- What came in; a key that is known does nothing a second time.
CREATE TABLE contact_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    teamspace text NOT NULL,
    key text,
    event text NOT NULL,
    address text NOT NULL,
    message_id text,
    at bigint NOT NULL,
    detail text NOT NULL,
    UNIQUE (teamspace, key)
);
CREATE INDEX contact_event_by_address ON contact_event (teamspace, lower(address));
